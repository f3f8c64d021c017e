"""Seconds of converting between layouts, as tables.

Even splits nest, so the steps from one layout to another depend only on the axes of their dims: they are derived once for all
sizes. The price of a step depends on the layout before it or after it. Other splits (of heads, or weighted) are priced one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from unitp.layout import Layout, Split, cuts
from unitp.mesh import Mesh
from unitp.program.convert import steps
from unitp.program.instructions import AllGather, Collective, Instruction, Value

Shape = tuple[int, ...]
Signature = tuple[tuple[tuple[str, ...] | None, ...], tuple[str, ...], str]
"""The axes that split each dim, the axes over which the value is partial, and its reduction."""

Path = tuple[tuple[Instruction, Signature, Signature], ...]
"""The steps of a conversion, each with the signatures before and after it."""

Step = Callable[[Instruction, Value, Value], float]
"""A function from an instruction, and the values before and after it, to seconds."""


class Conversions:
    """The prices of conversions on a mesh; `step` prices one instruction."""

    def __init__(self, mesh: Mesh, step: Step) -> None:
        self.mesh, self.step = mesh, step
        self._paths: dict[tuple[Signature, Signature], Path] = {}
        self._known: dict[tuple[Shape, str], _Known] = {}

    def table(
        self, shape: Shape, dtype: str, produced: Sequence[Layout], required: Sequence[Layout]
    ) -> npt.NDArray[np.float64]:
        """Return the seconds from each layout in `produced` to each in `required`; inf for a conversion that does not exist."""
        known = self._known.setdefault((shape, dtype), _Known(self, shape, dtype))
        sources, targets = [known.number(lay) for lay in produced], [known.number(lay) for lay in required]
        return np.array([[known.seconds(a, b) for b in targets] for a in sources])

    def path(self, source: Layout, target: Layout, keys: tuple[Signature, Signature]) -> Path:
        """Return the steps between two layouts with even splits; `keys` are their signatures."""
        if keys not in self._paths:
            found, before = [], keys[0]
            for instruction, after in steps(source, target, self.mesh):
                found.append((instruction, before, signature(after)))
                before = found[-1][2]
            self._paths[keys] = tuple(found)
        return self._paths[keys]


class _Known:
    """The prices for values of one shape and dtype. Layouts are numbered, since comparing them takes long."""

    def __init__(self, owner: Conversions, shape: Shape, dtype: str) -> None:
        self.owner, self.shape, self.dtype = owner, shape, dtype
        self._numbers: dict[Layout, int] = {}
        self._bound: list[Layout] = []
        self._even: list[Signature | None] = []
        self._layouts: dict[Signature, Layout] = {}
        self._seconds: dict[tuple[int, int], float] = {}
        self._steps: dict[tuple[type, str, Signature], float] = {}

    def number(self, layout: Layout) -> int:
        """Return the number of a layout; it is the same for a layout and its bound form."""
        if (found := self._numbers.get(layout)) is None:
            bound = layout.bind(self.shape, self.owner.mesh)
            if (found := self._numbers.get(bound)) is None:
                found = self._numbers[bound] = len(self._bound)
                self._bound.append(bound)
                self._even.append(signature(bound) if self._is_even(bound) else None)
            self._numbers[layout] = found
        return found

    def seconds(self, source: int, target: int) -> float:
        """Return the seconds of converting between two numbered layouts."""
        if source == target:
            return 0.0
        if (found := self._seconds.get((source, target))) is None:
            found = self._seconds[source, target] = self._convert(source, target)
        return found

    def _convert(self, source: int, target: int) -> float:
        a, b = self._bound[source], self._bound[target]
        if b.reduction == "max" and not (a.reduction == "max" and {*b.partial} <= {*a.partial}):
            return float("inf")  # no instruction produces a partial maximum
        before, after = self._even[source], self._even[target]
        if before is not None and after is not None:
            path = self.owner.path(a, b, (before, after))
            return sum(self._step(instruction, here, there) for instruction, here, there in path)
        total = 0.0
        for instruction, there in steps(a, b, self.owner.mesh):
            total += self.owner.step(instruction, self._value(a), self._value(there))
            a = there
        return total

    def _step(self, instruction: Instruction, before: Signature, after: Signature) -> float:
        """Return the seconds of a step between even splits, which depend on its result or (reductions) on its input alone."""
        gathers = not isinstance(instruction, Collective) or isinstance(instruction, AllGather)
        key = (type(instruction), getattr(instruction, "axis", ""), after if gathers else before)
        if (found := self._steps.get(key)) is None:
            values = (self._value(self._layout(s)) for s in (before, after))
            found = self._steps[key] = self.owner.step(instruction, *values)
        return found

    def _value(self, layout: Layout) -> Value:
        return Value(self.dtype, self.shape, layout)

    def _layout(self, axes: Signature) -> Layout:
        """Return the bound layout with even splits over these axes."""
        if axes not in self._layouts:
            dims, partial, reduction = axes
            opened = tuple(Split(names) if names else None for names in dims)
            made = Layout(opened, partial, "max" if reduction == "max" else "sum")
            self._layouts[axes] = made.bind(self.shape, self.owner.mesh)
        return self._layouts[axes]

    def _is_even(self, layout: Layout) -> bool:
        mesh = self.owner.mesh
        splits = ((s, n) for s, n in zip(layout.dims, self.shape, strict=True) if s)
        return all(n >= mesh.count(s.axes) and s.intervals == cuts(mesh.count(s.axes), n) for s, n in splits)


def signature(layout: Layout) -> Signature:
    """Return what decides the steps from and to a layout whose splits are even."""
    return tuple(s.axes if s else None for s in layout.dims), layout.partial, layout.reduction
