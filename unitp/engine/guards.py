"""Guards against illegal places (indices, positions, lengths) that a program computes on one rank.

The driver checks places that are elements of inputs (`unitp.session.indices`), and the places that top-k returns are always
legal. In any other operand that is a place (`unitp.graph.ops.places`), illegal numbers are replaced by a legal one and the
program continues, because a rank that raised in the middle of a program would leave the others waiting in a collective. After
the run, when all ranks are in step, `require` reads the places and raises. Which places are legal depends on the whole dim, so
all ranks agree, even if they hold only a part of it. A cache entry with an illegal place keeps its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from unitp.engine.operators.family import scalar
from unitp.engine.primitives import Primitives, Tensor
from unitp.errors import InputError
from unitp.graph.ops import operator
from unitp.graph.ops.places import Place, Span, refused
from unitp.program.instructions import Local, Program
from unitp.program.rank import intervals

Guards = dict[int, tuple[Place, ...]]
"""The operands whose numbers must be checked, by the number of their instruction."""


class PlaceError(InputError):
    """A program has computed an illegal place. All ranks have finished the run, so they are in step.

    If several ranks report one, the error with the smallest `order` is the first in the program.
    """

    def __init__(self, message: str, order: tuple[int, ...]) -> None:
        super().__init__(message)
        self.order = order


def guards(program: Program) -> Guards:
    """Return the operands of a program that must be checked. They are the same on all ranks."""
    found: Guards = {}
    spans: dict[str, Span | None] = {
        n: None for n in program.inputs if _integer(program, n)
    }  # None: the driver has checked it
    for number, instruction in enumerate(program.instructions):
        if not isinstance(instruction, Local):
            if instruction.input in spans:
                spans[instruction.output] = spans[instruction.input]
            continue
        record = operator(instruction.op)
        attrs = record.attributes(instruction.attrs)
        shapes = [program.values[name].shape if name else None for name in instruction.inputs]
        if record.places is not None:
            places = record.places(attrs, shapes)
            unknown = tuple(p for p in places if not _known(spans, instruction.inputs[p.operand], p))
            if unknown:
                found[number] = unknown
        if record.selected is not None:
            spans |= {instruction.outputs[n]: span for n, span in record.selected(attrs, shapes).items()}
        elif record.moved is not None and all(name in spans for name in instruction.inputs):
            first, *others = (spans[name] for name in instruction.inputs)
            if all(other == first for other in others):
                spans |= {name: first for name in instruction.outputs if _integer(program, name)}
    return found


def _integer(program: Program, name: str) -> bool:
    return program.values[name].dtype in ("int64", "int32")


def _known(spans: Mapping[str, Span | None], name: str, place: Place) -> bool:
    """Say whether all numbers of a value are known to be legal."""
    if name not in spans:
        return False
    span = spans[name]
    return span is None or (place.low <= span[0] and span[1] <= place.high)


def watched(program: Program, guarded: Guards) -> tuple[str, ...]:
    """Return the values that `require` reads after a run."""
    names = (program.instructions[n].inputs[p.operand] for n, places in guarded.items() for p in places)  # type: ignore[union-attr]
    return tuple(dict.fromkeys(names))


def guarded(p: Primitives, fn: Callable[..., Any], local: Local, places: tuple[Place, ...]) -> Callable[..., Any]:
    """Return a function like `fn`, of an operator's present inputs, that replaces illegal places by legal ones."""
    present = [number for number, name in enumerate(local.inputs) if name]
    at = {present.index(place.operand): place for place in places}

    def step(*given: Tensor) -> Any:
        return fn(*(x if x is None or i not in at else _legal(p, x, at[i])[0] for i, x in enumerate(given)))

    return step


def guarded_update(p: Primitives, dim: int, place: Place) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return a function like `update` along `dim`, except that entries with an illegal place keep their rows."""

    def step(past: Tensor, rows: Tensor, starts: Tensor) -> Tensor:
        legal, inside = _legal(p, starts, place)
        shape = p.shape(rows)
        held = p.slice(past, dim, place.harmless, place.harmless + shape[dim])
        kept = p.where(p.reshape(inside, (shape[0], *(1,) * (len(shape) - 1))), rows, held)
        return p.update(past, kept, legal, dim)

    return step


def _legal(p: Primitives, x: Tensor, place: Place) -> tuple[Tensor, Tensor]:
    """Return `x` with a legal number in place of every illegal one, and a bool tensor that says which are legal."""
    dtype = p.dtype(x)
    inside = p.logical_and(p.less(scalar(p, place.low - 1, dtype), x), p.less(x, scalar(p, place.high + 1, dtype)))
    return p.where(inside, x, scalar(p, place.harmless, dtype)), inside


def require(program: Program, guarded: Guards, rank: int, found: Mapping[str, Tensor], p: Primitives) -> None:
    """Check the places that a rank has computed. Raises PlaceError for the first illegal one, in the order of the program.

    `found` has the local values after the run, among them those that `watched` names.
    """
    for number, places in guarded.items():
        local = program.instructions[number]
        assert isinstance(local, Local)
        for place in places:
            name = local.inputs[place.operand]
            if found[name] is None:
                continue
            numbers = np.asarray(p.to_numpy(found[name]))
            strange = place.strange(numbers)
            if strange.any():
                here = tuple(int(i) for i in np.argwhere(strange)[0])
                at = tuple(i + start for i, (start, _) in zip(here, intervals(program, name, rank), strict=True))
                message = refused("the graph", numbers[here], at, place, local.op, local.outputs[0])
                raise PlaceError(message, (number, place.operand, *at))
