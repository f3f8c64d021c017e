"""The engine of a rank: each program is one tf.function, traced once, around the interpreter that other backends run eagerly.

Parameters are eager tensors that the function captures by reference; states are variables, written in place. What follows from
parameters alone is computed once, eagerly. TensorFlow runs a program in one call, so what the watchdog can name is the
program, not the instruction.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf

from unitp.errors import InputError, RankError
from unitp.mesh import Mesh
from unitp.program.eager import EagerEngine
from unitp.program.engine import Array, Engine, EngineStats, Progress
from unitp.program.instructions import Program
from unitp.program.transport import Alone, CountedCollectives
from unitp_tensorflow import primitives
from unitp_tensorflow.collectives import Call, Collectives
from unitp_tensorflow.overrides import overrides


class Traced(NamedTuple):
    """A program's function, which inputs it takes, and the collectives in it."""

    function: Any
    feeds: tuple[str, ...]
    calls: list[Call]


class TensorflowEngine(EagerEngine):
    def __init__(self, collectives: CountedCollectives, rank: int, mesh: Mesh, progress: Progress | None) -> None:
        super().__init__(primitives, overrides, collectives, rank, mesh, None)
        self._page = progress
        self._traced: dict[str, Traced] = {}
        self._runs: dict[str, int] = {}
        self._chains: dict[str, float] = {}

    def allocate(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self._state_types[name] = (shape, dtype)
        self._states[name] = None if 0 in shape else tf.Variable(tf.zeros(shape, dtype), trainable=False)
        self._traced.clear()

    def reset(self) -> None:
        for state in self._states.values():
            if state is not None:
                state.assign(tf.zeros_like(state))

    def compile(self, key: str, program: Program) -> None:
        super().compile(key, program)
        runner = self._runners[key]
        local = {n: _spec(program, n, self._rank) for n in program.inputs}
        feeds = tuple(n for n, spec in local.items() if spec is not None)
        traces: list[list[Call]] = []

        def body(*given: Any) -> dict[str, Any]:
            calls = _begin(self._collectives)
            store = dict.fromkeys(program.inputs) | dict(zip(feeds, given, strict=True))
            results = runner.run(store | self._states)
            for old, new in program.states:
                if results[new] is not self._states[old]:
                    self._states[old].assign(results[new])
            traces.append(calls())
            return {n: tf.convert_to_tensor(results[n]) for n in program.outputs if results[n] is not None}

        function = tf.function(body).get_concrete_function(*(local[n] for n in feeds))
        self._traced[key] = Traced(function, feeds, traces[-1])

    def run(self, key: str, inputs: dict[str, Array]) -> dict[str, Array]:
        traced, runner = self._traced[key], self._runners[key]
        if missing := [name for name in traced.feeds if name not in inputs]:
            raise InputError(f"no array is given for input {', '.join(missing)}")
        if self._page is not None:
            self._page.at(0)
        try:
            results = traced.function(*(tf.constant(inputs[name]) for name in traced.feeds))
        except tf.errors.OpError as error:
            raise RankError(f"rank {self._rank} failed in program {key}: {error.message}") from error
        self._runs[key] = self._runs.get(key, 0) + 1
        return {name: self._output(runner, name, results.get(name)) for name in runner.program.outputs}

    def stats(self) -> EngineStats:
        """`collective_s` is what the collectives of all runs take alone, in a chain: inside a function nobody sees them."""
        tally = self._collectives.tally
        seconds, calls, size = tally.seconds, tally.calls, tally.bytes
        for key, runs in self._runs.items():
            if key not in self._traced or not isinstance(self._collectives, Collectives):
                continue
            made = self._traced[key].calls
            if key not in self._chains:
                self._chains[key] = self._collectives.measure(made)
            seconds += runs * self._chains[key]
            calls += runs * len(made)
            size += runs * sum(call.bytes for call in made)
        return EngineStats(seconds, calls, size, len(self._traced))


def _begin(collectives: CountedCollectives) -> Any:
    """Start to note a function's collectives; the result gives what was noted."""
    if not isinstance(collectives, Collectives):
        return list
    collectives.begin()
    return lambda: collectives.calls


def _spec(program: Program, name: str, rank: int) -> Any:
    """The tensor that a rank is fed for an input; None where it holds nothing of it."""
    value = program.values[name]
    shape = value.layout.local_shape(value.shape, rank, program.mesh)
    return None if 0 in shape else tf.TensorSpec(shape, value.dtype)


def connect(rank: int, mesh: Mesh, progress: Progress | None) -> Engine:
    """Join the group of ranks that `unitp_tensorflow.cluster` started."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1 if mesh.size == 1 else 2)
    tf.config.experimental.enable_op_determinism()
    tf.config.set_visible_devices([], "GPU")
    return TensorflowEngine(Alone() if mesh.size == 1 else Collectives(rank, mesh), rank, mesh, progress)
