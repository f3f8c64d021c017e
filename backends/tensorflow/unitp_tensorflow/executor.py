"""The engine of a rank: programs are cut into segments (`unitp_tensorflow.segments`), and each structure of them is one
tf.function, traced once around the interpreter that other backends run eagerly.

Parameters and states are arguments, so that all layers, and all banks of states, share a function; states are variables,
written in place. What follows from parameters alone is computed once, eagerly. TensorFlow runs a segment in one call, so
what the watchdog can name is the segment, by its first instruction.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf

from unitp.engine.eager import EagerEngine
from unitp.engine.engine import Array, Engine, EngineStats, Progress
from unitp.engine.guards import require
from unitp.engine.interpreter import Runner
from unitp.engine.transport import Alone, CountedCollectives, Tally
from unitp.errors import InputError, RankError
from unitp.mesh import Mesh
from unitp.program.instructions import Program
from unitp.program.rank import local_shape
from unitp_tensorflow import primitives
from unitp_tensorflow.collectives import SMALL_BYTES, Call, Collectives
from unitp_tensorflow.overrides import Stored, overrides
from unitp_tensorflow.segments import Segment, segments

Tensor = Any


class Traced(NamedTuple):
    """The function of a structure, the types and places (among a segment's outputs) of what it gives, and its collectives."""

    function: Any
    types: list[Any]
    gives: tuple[int, ...]
    calls: list[Call]


class Step(NamedTuple):
    """A segment of a program: its function, what that is given, and where what it gives goes.

    `given` has parameters in their places; `holes` are the places of arguments that come from slots, states among them.
    """

    at: int
    traced: Traced
    given: list[Tensor]
    holes: tuple[tuple[int, int], ...]
    gives: tuple[int, ...]
    dead: tuple[int, ...]


class TensorflowEngine(EagerEngine):
    def __init__(self, collectives: CountedCollectives, rank: int, mesh: Mesh, progress: Progress | None) -> None:
        super().__init__(primitives, overrides, collectives, rank, mesh, progress)
        self._page = progress
        self._traced: dict[Hashable, Traced] = {}
        self._tracings = Tracings()
        self._prepared: dict[str, Prepared] = {}
        self._done: Counter[Call] = Counter()

    def _state(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        return tf.Variable(tf.zeros(shape, dtype), trainable=False)

    def _written(self, state: Tensor, value: Tensor) -> Tensor:
        if len(state.shape) > 1:
            return super()._written(state, value)
        state.assign(value)
        return state

    def compile(self, key: str, program: Program) -> None:
        super().compile(key, program)
        runner = self._runners[key]
        assert isinstance(runner, Runner)
        before = self._tracings.functions
        self._prepared[key] = Prepared(
            runner, self._rank, self._alike(program), self._collectives, self._traced, self._tracings
        )
        self._tracings.programs += self._tracings.functions > before

    def _alike(self, program: Program) -> dict[str, Tensor]:
        """The states of a bank whose shapes are the program's."""
        wanted = {old: local_shape(program, old, self._rank) for old, _ in program.states}
        for number, bank in self._banks.items():
            if wanted == {old: bank.types[old][0] for old in wanted if old in bank.types}:
                return self._states(number)
        if wanted:
            raise InputError(f"there is no bank with states of the program's shapes: {wanted}")
        return {}

    def forget(self, key: str) -> None:
        self._count()
        super().forget(key)
        del self._prepared[key]
        for structure in self._traced.keys() - {s for prepared in self._prepared.values() for s in prepared.structures}:
            del self._traced[structure]

    def run(self, key: str, inputs: dict[str, Array], bank: int = 0) -> dict[str, Array]:
        prepared, states = self._prepared[key], self._states(bank)
        if missing := [name for name in prepared.feeds if name not in inputs]:
            raise InputError(f"no array is given for input {', '.join(missing)}")
        results = prepared.run({name: tf.constant(inputs[name]) for name in prepared.feeds}, states, self._page)
        runner = prepared.runner
        require(runner.program, runner.guards, self._rank, results, primitives)
        for old, new in prepared.replaced:
            states[old].assign(results[new])
        return {name: self._output(runner, name, results[name]) for name in runner.program.outputs}

    def stats(self) -> EngineStats:
        """`collective_s` is what the collectives of all runs take alone, in a chain: inside a function nobody sees them."""
        tally = self._collectives.tally
        seconds, calls, size = tally.seconds, tally.calls, tally.bytes
        self._count()
        if isinstance(self._collectives, Collectives):
            seconds += self._collectives.measure(self._done)
            calls += self._done.total()
            size += sum(call.bytes * times for call, times in self._done.items())
        return EngineStats(seconds, calls, size, self._tracings.programs, self._tracings.functions)

    def _count(self) -> None:
        """Add the collectives of all runs since the last time to those done."""
        for prepared in self._prepared.values():
            for call in prepared.calls:
                self._done[call] += prepared.runs
            prepared.runs = 0
        self._done += Counter()  # drops those that never ran


@dataclass
class Tracings:
    """How often TensorFlow has traced: functions, each time that a body runs in Python; programs that needed it."""

    functions: int = 0
    programs: int = 0


class Prepared:
    """A program as calls of traced functions, made with the `states` of a bank, for every bank like it.

    `structures` are those of its segments; `replaced`, the states whose new value is none that was written in place.
    """

    def __init__(
        self,
        runner: Runner,
        rank: int,
        states: dict[str, Tensor],
        collectives: CountedCollectives,
        traced: dict[Hashable, Traced],
        tracings: Tracings,
    ) -> None:
        self.runner, self._rank, self._collectives, self._tracings = runner, rank, collectives, tracings
        program = runner.program
        held = [(old, new) for old, new in program.states if states[old] is not None]
        self._variables = {old: old for old, _ in held} | {new: old for old, new in held if new in runner.in_place}
        self.feeds = tuple(name for name in program.inputs if self._type(name) is not None)
        self.replaced = tuple((old, new) for old, new in held if new not in self._variables)
        cut = segments(runner)
        self._steps = [self._step(segment, states, traced) for segment in cut]
        self.structures = {segment.key for segment in cut}
        self.calls = [call for step in self._steps for call in step.traced.calls]
        self.runs = 0

    def run(self, feeds: dict[str, Tensor], states: dict[str, Tensor], progress: Progress | None) -> dict[str, Tensor]:
        values, slots = self.runner.initial.copy(), self.runner.slots
        for name, value in feeds.items():
            values[slots[name]] = value
        for name, old in self._variables.items():
            values[slots[name]] = states[old].handle
        call = tf.raw_ops.StatefulPartitionedCall  # 31 us a call; through the function's own interface 270
        for step in self._steps:
            if progress is not None:
                progress.at(step.at)
            given = step.given.copy()
            for place, slot in step.holes:
                given[place] = values[slot]
            try:
                made = call(args=given, Tout=step.traced.types, f=step.traced.function)
            except tf.errors.OpError as error:
                raise RankError(
                    f"rank {self._rank} failed in the segment from instruction {step.at}: {error.message}"
                ) from error
            for slot, value in zip(step.gives, made or (), strict=True):
                values[slot] = value
            for slot in step.dead:
                values[slot] = None
        self.runs += 1
        names = (*self.runner.program.outputs, *(new for _, new in self.replaced), *self.runner.watched)
        found = {name: values[slots[name]] for name in names}
        return found | {name: states[old] for name, old in self._variables.items() if name in found}

    # building

    def _step(self, segment: Segment, states: dict[str, Tensor], traced: dict[Hashable, Traced]) -> Step:
        slots = self.runner.slots
        held = {name: self._held(name, states) for name in segment.inputs}
        fed = [name for name in segment.inputs if held[name] is not None]
        if segment.key not in traced:
            traced[segment.key] = self._trace(segment, {name: held[name] for name in fed})
        function = traced[segment.key]
        given = [None if isinstance(held[name], tf.TensorSpec | tf.Variable) else _flat(held[name]) for name in fed]
        holes = tuple((place, slots[name]) for place, name in enumerate(fed) if given[place] is None)
        gives = tuple(slots[segment.outputs[place]] for place in function.gives)
        given += function.function.captured_inputs
        return Step(segment.parts[0].number, function, given, holes, gives, tuple(slots[n] for n in segment.dead))

    def _trace(self, segment: Segment, held: dict[str, Tensor]) -> Traced:
        """Make the function of a segment. All ranks trace the same structures in the same order."""
        slots, variables = self.runner.slots, self._variables
        if isinstance(self._collectives, Collectives):
            self._collectives.begin()
        gives: list[int] = []
        stored = {name: x if isinstance(x, Stored) else None for name, x in held.items()}

        def body(*given: Tensor) -> list[Tensor]:
            self._tracings.functions += 1
            values: list[Tensor] = [None] * len(slots)
            for (name, packed), tensor in zip(stored.items(), given, strict=True):
                values[slots[name]] = tensor if packed is None else packed._replace(weight=tensor)
            for part in segment.parts:
                if part.step is not None:
                    part.step(values)
            found = [
                (place, values[slots[name]]) for place, name in enumerate(segment.outputs) if name not in variables
            ]
            gives[:] = [place for place, x in found if x is not None]
            return [tf.convert_to_tensor(x) for _, x in found if x is not None]

        examples = [x.weight if isinstance(x, Stored) else x for x in held.values()]
        function = tf.function(body).get_concrete_function(*examples)
        calls = self._collectives.calls if isinstance(self._collectives, Collectives) else []
        return Traced(function, [x.dtype for x in function.outputs], tuple(gives), calls)

    def _held(self, name: str, states: dict[str, Tensor]) -> Tensor:
        """A constant or state, or the type of what comes from a slot; None where this rank holds nothing."""
        if name in self._variables:
            return states[self._variables[name]]
        known = self.runner.initial[self.runner.slots[name]]
        return known if known is not None or name not in self.runner.program.values else self._type(name)

    def _type(self, name: str) -> Tensor:
        shape = local_shape(self.runner.program, name, self._rank)
        return None if 0 in shape else tf.TensorSpec(shape, self.runner.program.values[name].dtype)


def _flat(x: Tensor) -> Tensor:
    """A constant as a function's argument."""
    return x.weight if isinstance(x, Stored) else x


def connect(rank: int, mesh: Mesh, progress: Progress | None) -> Engine:
    """Join the group of ranks that `unitp_tensorflow.cluster` started."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1 if mesh.size == 1 else 2)
    tf.config.experimental.enable_op_determinism()
    tf.config.set_visible_devices([], "GPU")
    collectives = Alone() if mesh.size == 1 else Collectives(rank, mesh)
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
