"""A rank's view of a program: local shapes and intervals, derived from layouts, factor splits and coordinates."""

from __future__ import annotations

from typing import NamedTuple

from unitp.graph.ops import operator
from unitp.graph.ops.attributes import Attributes
from unitp.graph.values import STORED
from unitp.layout import Interval
from unitp.program.instructions import Local, Program


class Context(NamedTuple):
    """What the implementation of an operator needs in addition to its tensors.

    `inputs` and `outputs` are local shapes (None for an absent input), `whole` the inputs' global shapes. `intervals` maps a
    split factor to the part that this rank computes; an unsplit factor is not listed. `dtype` is that of the first output,
    `stored` that of an operand that is stored in 16 bits, else "".
    """

    op: str
    attrs: Attributes
    inputs: tuple[tuple[int, ...] | None, ...]
    outputs: tuple[tuple[int, ...], ...]
    intervals: dict[str, Interval]
    dtype: str
    whole: tuple[tuple[int, ...] | None, ...] = ()
    stored: str = ""

    def of_dtype(self, dtype: str) -> Context:
        """Return the context of the same operator with outputs of another dtype."""
        return self._replace(dtype=dtype)

    def start(self, factor: str) -> int:
        """Return the first row of this rank's part of `factor`."""
        return self.intervals.get(factor, (0, 0))[0]


def local_shape(program: Program, name: str, rank: int) -> tuple[int, ...]:
    value = program.values[name]
    return value.layout.local_shape(value.shape, rank, program.mesh)


def intervals(program: Program, name: str, rank: int) -> tuple[Interval, ...]:
    """Return the interval of each dim of value `name` that `rank` holds."""
    value = program.values[name]
    return value.layout.intervals(value.shape, rank, program.mesh)


def context(program: Program, local: Local, rank: int) -> Context:
    return Context(
        op=local.op,
        attrs=operator(local.op).attributes(local.attrs),
        inputs=tuple(local_shape(program, name, rank) if name else None for name in local.inputs),
        outputs=tuple(local_shape(program, name, rank) for name in local.outputs),
        intervals={factor: split.at(rank, program.mesh) for factor, split in local.splits.items()},
        dtype=program.values[local.outputs[0]].dtype,
        whole=tuple(program.values[name].shape if name else None for name in local.inputs),
        stored=_stored(program, local),
    )


def _stored(program: Program, local: Local) -> str:
    place = operator(local.op).stored
    dtype = "" if place is None else program.values[local.inputs[place]].dtype
    return dtype if dtype in STORED else ""
