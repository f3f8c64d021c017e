"""Overrides run frequent operators on a framework's fused kernels, in place of a decomposition with the same result.

An implementation (override or decomposition) is `fn(p, ctx, *inputs)`: `p` are the backend's primitives, `ctx` is a
`unitp.program.rank.Context`, inputs are local tensors (None if absent). It returns the output, or a tuple of several.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

Implementation = Callable[..., Any]
Pack = Callable[[Any, Any, bool], tuple[Any, Any]]
"""`pack(p, weight, transposed) -> (operand, weight)` decides how a backend stores the right operand of a MatMul.

The backend's MatMul gets `operand` at every call, in place of `weight` (of its transpose if `transposed`). All other
readers, for example the look-up of a tied embedding, get the returned weight in place of the loaded one. It is a view of
the operand's storage, so that a parameter is stored once.
"""


class Prepared:
    """An implementation in two steps: `build(p, ctx)` does all that needs no inputs, and returns `fn(*inputs)`."""

    def __init__(self, build: Callable[..., Callable[..., Any]]) -> None:
        self.build = build

    def __call__(self, p: Any, ctx: Any, *inputs: Any) -> Any:
        return self.build(p, ctx)(*inputs)


def bound(implementation: Implementation, p: Any, ctx: Any) -> Callable[..., Any]:
    """Return an implementation bound to primitives and a context: a function of the input tensors alone."""
    return implementation.build(p, ctx) if isinstance(implementation, Prepared) else partial(implementation, p, ctx)


def as_stored(p: Any, weight: Any, transposed: bool) -> tuple[Any, Any]:
    """Return the default `pack`: the parameter as it was loaded, transposed where needed."""
    return (p.transpose(weight, (1, 0)) if transposed else weight), weight


class Overrides:
    """A backend's table of overrides. Each is registered for the dtypes in which it equals its decomposition."""

    def __init__(self, pack: Pack = as_stored) -> None:
        self.pack = pack
        self._table: dict[tuple[str, str], Implementation] = {}

    def __call__(self, op: str, *dtypes: str) -> Callable[[Implementation], Implementation]:
        """Return a decorator that registers an override: `@override("Softmax", "float32", "float64")`.

        The dtype is that of the operator's first output.
        """

        def register(fn: Implementation) -> Implementation:
            for dtype in dtypes:
                self._table[op, dtype] = fn
            return fn

        return register

    def get(self, op: str, dtype: str) -> Implementation | None:
        return self._table.get((op, dtype))

    def ops(self) -> set[tuple[str, str]]:
        return set(self._table)
