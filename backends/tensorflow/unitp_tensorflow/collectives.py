"""The collectives on TensorFlow's collective runtime, which MultiWorkerMirroredStrategy starts (RING).

They are raw V2 operators, since the strategy itself can only sum, and gathers over all ranks. Each group has its own key, and each
call site its own instance key, since the shape of a key never changes. Instance keys are numbered per axis, so that all members
of a group count alike. `timeout_seconds` is 0, because any other value leaks two threads per call; the watchdog has time limits.
A control dependency ties each call to the one before, so that all ranks run them in one order.

A collective inside a tf.function cannot be timed. `measure` times the collectives of a program alone, in chains of the same sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from math import prod
from time import perf_counter
from typing import Any, NamedTuple

import tensorflow as tf

from unitp.engine.transport import Tally
from unitp.mesh import Mesh

Tensor = Any

SMALL_BYTES = 256 << 10
"""Below this size, a gather and a local sum are faster than the reduce kernel (462 us instead of 900 for 2 KB)."""
RUNS, CHAIN = 3, 8


class Call(NamedTuple):
    """A collective in a program: the method, the shape and dtype of its input, and its other arguments."""

    method: str
    shape: tuple[int, ...]
    dtype: str
    parts: int
    arguments: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return self.parts * prod(self.shape) * int(tf.as_dtype(self.dtype).size)


class Collectives:
    """`unitp.engine.primitives.Collectives` among the ranks that `unitp_tensorflow.cluster` started."""

    def __init__(self, rank: int, mesh: Mesh) -> None:
        options = tf.distribute.experimental.CommunicationOptions(
            implementation=tf.distribute.experimental.CommunicationImplementation.RING
        )
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        self.tally = Tally()
        self.calls: list[Call] = []
        self._seconds: dict[Call, float] = {}
        self._last: Tensor = None
        self._groups: dict[str, dict[str, Any]] = {}
        self._instances = {axis: count(1) for axis, _ in mesh.axes}
        self._base: dict[str, int] = {}
        number = count(1)
        for place, (axis, size) in enumerate(mesh.axes):
            for members in mesh.groups(axis):
                key = next(number)
                if rank in members and size > 1:
                    self._groups[axis] = {"group_size": size, "group_key": 1000 + key}
                    self._base[axis] = (place + 1) * 10_000_000

    def begin(self) -> None:
        """Begin a new tf.function: its first collective follows no other."""
        self.calls, self._last = [], None

    def _options(self, axis: str) -> dict[str, Any]:
        return {
            **self._groups[axis],
            "instance_key": self._base[axis] + next(self._instances[axis]),
            "communication_hint": "ring",
            "timeout_seconds": 0.0,
        }

    def _run(self, call: Call, make: Callable[[], Tensor]) -> Tensor:
        """Run one collective after the one before."""
        self.calls.append(call)
        if tf.executing_eagerly():
            with self.tally.call(call.bytes):
                return make()
        with tf.control_dependencies([] if self._last is None else [self._last]):
            out = make()
        self._last = out
        return out

    def all_reduce(self, x: Tensor, axis: str, reduction: str) -> Tensor:
        call = _call("all_reduce", [x], axis, reduction)
        if call.bytes < SMALL_BYTES and x.dtype.is_floating:
            parts = self._run(call, lambda: self._gather(x, axis))
            return tf.reduce_sum(parts, 0) if reduction == "sum" else tf.reduce_max(parts, 0)
        merge = "Add" if reduction == "sum" else "Max"
        return self._run(
            call,
            lambda: tf.raw_ops.CollectiveReduceV2(
                input=tf.identity(x), merge_op=merge, final_op="Id", ordering_token=[], **self._options(axis)
            ),
        )

    def _gather(self, x: Tensor, axis: str) -> Tensor:
        """Return `x` of all members, stacked. A bool is sent as an integer, and a scalar as a vector, since it would abort the process."""
        wire = tf.cast(x, "int32") if x.dtype == tf.bool else x
        stacked = tf.raw_ops.CollectiveGatherV2(
            input=tf.reshape(wire, (1, -1)), ordering_token=[], **self._options(axis)
        )
        return tf.cast(tf.reshape(stacked, (self._groups[axis]["group_size"], *x.shape)), x.dtype)

    def all_gather(self, x: Tensor, axis: str) -> list[Tensor]:
        return list(tf.unstack(self._run(_call("all_gather", [x], axis), lambda: self._gather(x, axis))))

    def _exchange(self, parts: Sequence[Tensor], axis: str) -> Tensor:
        stacked = tf.stack(list(parts))
        wire = tf.cast(stacked, "int32") if stacked.dtype == tf.bool else stacked
        flat = tf.reshape(wire, (len(parts), -1))
        out = tf.raw_ops.CollectiveAllToAllV2(input=flat, ordering_token=[], **self._options(axis))
        return tf.cast(tf.reshape(out, stacked.shape), stacked.dtype)

    def reduce_scatter(self, parts: Sequence[Tensor], axis: str) -> Tensor:
        """Send each member its part, and sum what arrives: TensorFlow has no kernel for CPUs."""
        given = self._run(_call("reduce_scatter", parts, axis), lambda: self._exchange(parts, axis))
        return tf.reduce_sum(given, 0)

    def all_to_all(self, parts: Sequence[Tensor], axis: str) -> list[Tensor]:
        return list(tf.unstack(self._run(_call("all_to_all", parts, axis), lambda: self._exchange(parts, axis))))

    def measure(self, calls: Counter[Call]) -> float:
        """Return the seconds that these collectives take alone, each as in a chain of its kind. All ranks must call this."""
        return sum(times * self._alone(call) for call, times in calls.items())

    def _alone(self, call: Call) -> float:
        """Return the seconds of one such call, in the fastest of some chains. They are measured once."""
        if call not in self._seconds:

            def chain(*given: Tensor) -> Tensor:
                self.begin()
                for _ in range(CHAIN):
                    getattr(self, call.method)(given if call.method in PARTS else given[0], *call.arguments)
                return self._last

            found = []
            function, given = tf.function(chain), [tf.zeros(call.shape, call.dtype)] * call.parts
            function(*given)
            for _ in range(RUNS):
                start = perf_counter()
                function(*given)
                found.append((perf_counter() - start) / CHAIN)
            self._seconds[call] = min(found)
        return self._seconds[call]

    def close(self) -> None:
        """Do nothing: the runtime ends with the process."""


PARTS = ("reduce_scatter", "all_to_all")


def _call(method: str, given: Sequence[Tensor], *arguments: str) -> Call:
    return Call(method, tuple(given[0].shape), str(given[0].dtype.name), len(given), arguments)
