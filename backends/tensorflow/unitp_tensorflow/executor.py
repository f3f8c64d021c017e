"""The engine of a rank: programs are cut into segments (`unitp.engine.segments`), and each structure of them is one
tf.function, traced once around the interpreter that other backends run eagerly.

Parameters and states are arguments, so that all layers, and all banks of states, share a function; states are variables,
written in place. What follows from parameters alone is computed once, eagerly. TensorFlow runs a segment in one call, so
what the watchdog can name is the segment, by its first instruction.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf

from unitp.engine.base import BaseEngine, CompiledProgram
from unitp.engine.engine import Engine, EngineStats, Progress
from unitp.engine.interpreter import Part, Runner
from unitp.engine.segments import Schedule, Segment, Structure, repeating
from unitp.engine.states import Storage
from unitp.engine.transport import Alone, Buffers, CountedCollectives, Tally
from unitp.mesh import Mesh
from unitp.program.instructions import Program
from unitp.program.rank import local_shape
from unitp_tensorflow import primitives
from unitp_tensorflow.carried import CarriedCollectives
from unitp_tensorflow.collectives import SMALL_BYTES, Call, Collectives
from unitp_tensorflow.overrides import Stored, overrides

Tensor = Any


class Traced(NamedTuple):
    """The function of a structure, the types and places (among a segment's outputs) of what it gives, and its collectives."""

    function: Any
    types: list[Any]
    gives: tuple[int, ...]
    calls: list[Call]


@dataclass
class Account:
    """How often TensorFlow has traced: functions, each time that a body runs in Python; programs that needed it. And the
    collectives of all runs, as far as they are counted.
    """

    functions: int = 0
    programs: int = 0
    done: Counter[Call] = field(default_factory=Counter)


@final
class Variables(Storage):
    """States are variables, so that a function writes in place."""

    def make(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        return tf.Variable(tf.zeros(shape, dtype), trainable=False)

    def write(self, state: Tensor, value: Tensor) -> Tensor:
        """Into the buffer that is there: assigned zeros bring buffers of their own (40 MB more, at the peak of a rank)."""
        if len(state.shape) > 1:
            return primitives.update(state, value, tf.zeros(state.shape[:1], "int64"), 1)
        state.assign(value)
        return state

    def apart(self, value: Tensor) -> Tensor:
        """TensorFlow copies a variable's buffer before it writes into one that a tensor shares."""
        return tf.convert_to_tensor(value)


@final
class TensorflowEngine(BaseEngine):
    """Programs are traced. `compiled` has the `Traced` functions."""

    def __init__(self, collectives: CountedCollectives, rank: int, mesh: Mesh, progress: Progress | None) -> None:
        super().__init__(
            primitives, overrides, collectives, rank, mesh, progress, feed=tf.constant, storage=Variables()
        )
        self._account = Account()

    def prepare(self, program: Program) -> CompiledProgram:
        before = self._account.functions
        made = TracedProgram(self, self.folded(program), self.states.like(program, self.rank), self._account)
        self._account.programs += self._account.functions > before
        return made

    def stats(self) -> EngineStats:
        """`collective_s` is what RING's collectives of all runs take alone, in a chain: inside a function nobody sees them. Over
        another transport they are counted as they run.
        """
        tally, account = self.collectives.tally, self._account
        seconds, calls, size = tally.seconds, tally.calls, tally.bytes
        for program in self.programs.values():
            program.settle()
        if isinstance(self.collectives, Collectives):
            seconds += self.collectives.measure(account.done)
            calls += account.done.total()
            size += sum(call.bytes * times for call, times in account.done.items())
        return EngineStats(seconds, calls, size, account.programs, account.functions)


@final
class TracedProgram(CompiledProgram):
    """A program as calls of traced functions, made with the `states` of a bank, for every bank like it."""

    def __init__(self, engine: TensorflowEngine, runner: Runner, states: dict[str, Tensor], account: Account) -> None:
        cut = repeating(runner)
        super().__init__(runner, {structure for _, structure in cut})
        self._engine, self._runner, self._account = engine, runner, account
        held = [(old, new) for old, new in self.program.states if states[old] is not None]
        self._variables = {old: old for old, _ in held} | {new: old for old, new in held if new in runner.in_place}
        self._calls: list[Call] = []
        self._schedule = Schedule(engine.rank, engine.progress)
        for segment, structure in cut:
            self._add(segment, structure, states)
        self._runs = 0

    def run(self, store: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values, slots = self._runner.initial.copy(), self._runner.slots
        for name in self.program.inputs:
            values[slots[name]] = store[name]
        for name, old in self._variables.items():
            values[slots[name]] = store[old].handle
        self._schedule.run(values)
        self._runs += 1
        names = (*self.program.outputs, *(new for _, new in self.program.states), *self._runner.watched)
        return {n: store[self._variables[n]] if n in self._variables else values[slots[n]] for n in names}

    def settle(self) -> None:
        """Add the collectives of all runs since the last time to those done."""
        if self._runs:
            for call in self._calls:
                self._account.done[call] += self._runs
        self._runs = 0

    # building

    def _add(self, segment: Segment[Part, str], structure: Structure[str, Hashable], states: dict[str, Tensor]) -> None:
        """Add a segment. Parameters stand in their places among what its function is given; the rest, states among it, comes
        from slots.
        """
        slots, compiled = self._runner.slots, self._engine.compiled
        held = {name: self._held(name, states) for name in segment.inputs}
        fed = [name for name in segment.inputs if held[name] is not None]
        if structure not in compiled:
            compiled[structure] = self._trace(segment, {name: held[name] for name in fed})
        traced: Traced = compiled[structure]
        self._calls += traced.calls
        given = [None if isinstance(held[name], tf.TensorSpec | tf.Variable) else _flat(held[name]) for name in fed]
        holes = [place for place in range(len(fed)) if given[place] is None]
        given += traced.function.captured_inputs
        inputs = [slots[fed[place]] for place in holes]
        outputs = [slots[segment.outputs[place]] for place in traced.gives]
        dead = [slots[name] for name in segment.dead]
        numbers = [part.number for part in segment.nodes]
        self._schedule.add(numbers, _called(traced, given, holes), inputs, outputs, dead)

    def _trace(self, segment: Segment[Part, str], held: dict[str, Tensor]) -> Traced:
        """Make the function of a segment. All ranks trace the same structures in the same order."""
        slots, variables, collectives = self._runner.slots, self._variables, self._engine.collectives
        if isinstance(collectives, Collectives | CarriedCollectives):
            collectives.begin()
        gives: list[int] = []
        stored = {name: x if isinstance(x, Stored) else None for name, x in held.items()}

        def body(*given: Tensor) -> list[Tensor]:
            self._account.functions += 1
            values: list[Tensor] = [None] * len(slots)
            for (name, packed), tensor in zip(stored.items(), given, strict=True):
                values[slots[name]] = tensor if packed is None else Stored(tensor, packed.transposed)
            for part in segment.nodes:
                if part.step is not None:
                    part.step(values)
            found = [
                (place, values[slots[name]]) for place, name in enumerate(segment.outputs) if name not in variables
            ]
            gives[:] = [place for place, x in found if x is not None]
            return [tf.convert_to_tensor(x) for _, x in found if x is not None]

        examples = [x.weight if isinstance(x, Stored) else x for x in held.values()]
        function = tf.function(body).get_concrete_function(*examples)
        calls = collectives.calls if isinstance(collectives, Collectives) else []
        return Traced(function, [x.dtype for x in function.outputs], tuple(gives), calls)

    def _held(self, name: str, states: dict[str, Tensor]) -> Tensor:
        """A constant or state, or the type of what comes from a slot; None where this rank holds nothing."""
        if name in self._variables:
            return states[self._variables[name]]
        known = self._runner.initial[self._runner.slots[name]]
        return known if known is not None or name not in self.program.values else self._type(name)

    def _type(self, name: str) -> Tensor:
        shape = local_shape(self.program, name, self._engine.rank)
        return None if 0 in shape else tf.TensorSpec(shape, self.program.values[name].dtype)


def _called(traced: Traced, given: list[Tensor], holes: list[int]) -> Callable[..., Any]:
    """The function of what comes from slots; of one output, that output."""
    call = tf.raw_ops.StatefulPartitionedCall  # 31 us a call; through the function's own interface 270
    function, types, single = traced.function, traced.types, len(traced.types) == 1

    def fn(*values: Tensor) -> Any:
        args = given.copy()
        for place, value in zip(holes, values, strict=True):
            args[place] = value
        made = call(args=args, Tout=types, f=function)
        return made[0] if single else made

    return fn


def _flat(x: Tensor) -> Tensor:
    """A constant as a function's argument."""
    return x.weight if isinstance(x, Stored) else x


def connect(rank: int, mesh: Mesh, progress: Progress | None, buffers: Buffers | None = None) -> Engine:
    """Join the ranks that `unitp_tensorflow.cluster` started, or take those that `buffers` have joined."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(2 if mesh.size > 1 and buffers is None else 1)
    tf.config.experimental.enable_op_determinism()
    tf.config.set_visible_devices([], "GPU")
    collectives: CountedCollectives = Alone()
    if mesh.size > 1:
        collectives = Collectives(rank, mesh) if buffers is None else CarriedCollectives(buffers)
    _warm_up(collectives, mesh)
    return TensorflowEngine(collectives, rank, mesh, progress)


def _warm_up(collectives: CountedCollectives, mesh: Mesh) -> None:
    """Trace and run a small function with each kind of reduction, as part of joining: TensorFlow optimises and connects
    lazily, which would be on the first prompt's account (0.2 s, 12 MB of its code).
    """

    def body(x: Tensor, state: Tensor) -> Tensor:
        y = tf.nn.softmax(tf.reshape(tf.matmul(x, x, transpose_b=True), (8, 1, 8)))
        primitives.update(state, tf.zeros_like(state), tf.zeros((1,), "int64"), 1)
        return tf.transpose(y * tf.nn.silu(x[:, None]), (1, 0, 2)) + tf.gather(state, tf.range(8), axis=1)

    x, state = tf.ones((8, 8)), tf.Variable(tf.ones((1, 8, 8)), trainable=False)
    out = tf.function(body).get_concrete_function(x, state)(x, state)
    if not isinstance(collectives, Collectives):
        return
    large = tf.zeros((SMALL_BYTES,))
    for axis, size in mesh.axes:
        if size > 1:
            collectives.all_reduce(out, axis, "sum")
            collectives.all_reduce(large, axis, "sum")
    collectives.tally = Tally()
