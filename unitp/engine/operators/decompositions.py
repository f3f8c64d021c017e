"""The table of decompositions, and what they share: constants of the right dtype, attributes as float32 rounds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unitp.engine.overrides import Implementation
from unitp.engine.primitives import Primitives, Tensor
from unitp.errors import ProgramError, did_you_mean
from unitp.program.rank import Context

_TABLE: dict[str, Implementation] = {}


def decomposition(*names: str) -> Callable[[Implementation], Implementation]:
    """Register an implementation for these operators: `@decomposition("Softmax")`."""

    def register(fn: Implementation) -> Implementation:
        for name in names:
            if name in _TABLE:
                raise ProgramError(f"operator {name} has two decompositions")
            _TABLE[name] = fn
        return fn

    return register


def get(op: str) -> Implementation:
    """The decomposition of `op`. Raises ProgramError where there is none."""
    if op not in _TABLE:
        raise ProgramError(f'operator "{op}" has no decomposition', hint=did_you_mean(op, _TABLE))
    return _TABLE[op]


def ops() -> set[str]:
    """The operators that have a decomposition."""
    return set(_TABLE)


def rank_of(ctx: Context, position: int = 0) -> int:
    """How many dims input `position` has."""
    shape = ctx.inputs[position]
    return len(shape) if shape is not None else 0


def scalar(p: Primitives, value: Any, dtype: str) -> Tensor:
    """A constant without dims."""
    return p.full((), value, dtype)


def unwrapped(p: Primitives, ids: Tensor, size: int) -> Tensor:
    """Indices counted from the front; negative ones count from the end."""
    dtype = p.dtype(ids)
    return p.where(p.less(ids, scalar(p, 0, dtype)), p.add(ids, scalar(p, size, dtype)), ids)
