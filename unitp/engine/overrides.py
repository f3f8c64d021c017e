"""Hot operators on a framework's fused kernels: an override replaces a decomposition where it gives the same result.

An implementation (override or decomposition) is `fn(p, ctx, *inputs)`: `p` the backend's primitives, `ctx` the
`unitp.program.rank.Context`, inputs local arrays (None where absent). It returns the output, or a tuple of several.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

Implementation = Callable[..., Any]
Pack = Callable[[Any, Any, bool], tuple[Any, Any]]
"""`pack(p, weight, transposed) -> (operand, weight)`: how a backend stores a parameter that is MatMul's right operand.

The operand is what the backend's MatMul gets for `weight` (for its transpose where `transposed`) at every call. The
weight given back replaces the one that was loaded for all other uses (a look-up in a tied embedding): a view of the
same storage, so that a parameter is held once.
"""


class Prepared:
    """An implementation in two steps: `build(p, ctx)` settles what the context tells, and returns `fn(*inputs)`."""

    def __init__(self, build: Callable[..., Callable[..., Any]]) -> None:
        self.build = build

    def __call__(self, p: Any, ctx: Any, *inputs: Any) -> Any:
        return self.build(p, ctx)(*inputs)


def bound(implementation: Implementation, p: Any, ctx: Any) -> Callable[..., Any]:
    """An implementation with its context: a function of the input arrays."""
    return implementation.build(p, ctx) if isinstance(implementation, Prepared) else partial(implementation, p, ctx)


def as_stored(p: Any, weight: Any, transposed: bool) -> tuple[Any, Any]:
    """The default packing: the parameter as it was loaded, transposed where it must be."""
    return (p.transpose(weight, (1, 0)) if transposed else weight), weight


class Overrides:
    """A backend's table of overrides; each lists the dtypes in which it equals its decomposition."""

    def __init__(self, pack: Pack = as_stored) -> None:
        self.pack = pack
        self._table: dict[tuple[str, str], Implementation] = {}

    def __call__(self, op: str, *dtypes: str) -> Callable[[Implementation], Implementation]:
        """Register: `@override("Softmax", "float32", "float64")`. The dtype is that of the operator's first output."""

        def register(fn: Implementation) -> Implementation:
            for dtype in dtypes:
                self._table[op, dtype] = fn
            return fn

        return register

    def get(self, op: str, dtype: str) -> Implementation | None:
        return self._table.get((op, dtype))

    def ops(self) -> set[tuple[str, str]]:
        return set(self._table)
