"""Whatever attributes and shapes a node has, its rule gives a result or a GraphError: nothing that would have to be caught broadly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from unitp.errors import GraphError
from unitp.graph.ops import infer, operator, rule_of
from unitp.graph.ops import records as table
from unitp.graph.values import DTYPES, Node, TensorType

NAMES = (
    "axis", "axes", "shape", "k", "to", "split", "starts", "ends", "perm", "keepdims", "equation", "transA",
    "batch_dims", "epsilon", "is_causal", "interleaved", "count",
)  # fmt: skip
SIZES = (0, 1, 1, 2, 3, 4, 6, "batch")


class Strange:
    """Attributes and shapes at random, some of which fit."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def shape(self) -> tuple[int | str, ...]:
        return tuple(self.pick(*SIZES) for _ in range(self.rng.integers(0, 6)))

    def attribute(self) -> Any:
        numbers = tuple(int(n) for n in self.rng.integers(-4, 5, self.rng.integers(0, 5)))
        words = self.pick("batch", "float32", "bsd,efd->bsef", "ij,jk->ik", "")
        return self.pick(int(self.rng.integers(-6, 7)), 0.5, words, numbers, numbers, self.shape())

    def attributes(self) -> dict[str, Any]:
        return {name: self.attribute() for name in NAMES if self.rng.random() < 0.35}

    def inputs(self, arity: tuple[int, int]) -> list[tuple[int | str, ...] | None]:
        few, many = max(arity[0] - 1, 0), min(arity[1], arity[0] + 4) + 1
        shapes = [self.shape() for _ in range(self.rng.integers(few, many + 1))]
        if self.rng.random() < 0.5:
            shapes = shapes[:1] * len(shapes)
        return [None if self.rng.random() < 0.1 else shape for shape in shapes]


@pytest.mark.parametrize("op", sorted(table._TABLE))
def test_a_rule_raises_graph_errors_only(op: str) -> None:
    made = Strange(sum(map(ord, op)))
    outcomes = {True: 0, False: 0}
    for _ in range(150):
        attrs, shapes = made.attributes(), made.inputs(operator(op).arity)
        names = [f"x{i}" if shape is not None else "" for i, shape in enumerate(shapes)]
        known = {n: TensorType(made.pick(*DTYPES), s) for n, s in zip(names, shapes, strict=True) if s is not None}
        outputs = made.pick(None, [made.shape(), made.shape()])
        asked: tuple[Callable[[], object], ...] = (
            lambda: rule_of(op, attrs, shapes, outputs),  # noqa: B023
            lambda: infer(Node(op, tuple(names), ("y",), attrs), known),  # noqa: B023
        )
        for ask in asked:
            try:
                ask()
                outcomes[True] += 1
            except GraphError:
                outcomes[False] += 1
    assert outcomes[False] > 0
