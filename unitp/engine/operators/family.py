"""What decompositions share: a family for each module, constants of the right dtype, and indices that count from the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unitp.engine.overrides import Implementation
from unitp.engine.primitives import Primitives, Tensor
from unitp.errors import ProgramError
from unitp.program.rank import Context


class Family(dict[str, Implementation]):
    """The decompositions of a module: `decomposition = Family()`, then `@decomposition("Softmax")`."""

    def __call__(self, *names: str) -> Callable[[Implementation], Implementation]:
        """Return a decorator that adds an implementation for these operators. Raises ProgramError if one has been added."""

        def add(fn: Implementation) -> Implementation:
            for name in names:
                if name in self:
                    raise ProgramError(f"operator {name} has two decompositions")
                self[name] = fn
            return fn

        return add


def rank_of(ctx: Context, position: int = 0) -> int:
    """Return the number of dims of input `position`."""
    shape = ctx.inputs[position]
    return len(shape) if shape is not None else 0


def scalar(p: Primitives, value: Any, dtype: str) -> Tensor:
    """Return a constant without dims."""
    return p.full((), value, dtype)


def unwrapped(p: Primitives, ids: Tensor, size: int) -> Tensor:
    """Return indices counted from the front, for indices of which negative ones count from the end."""
    dtype = p.dtype(ids)
    return p.where(p.less(ids, scalar(p, 0, dtype)), p.add(ids, scalar(p, size, dtype)), ids)
