"""Graphs of a few nodes, so that all their plans can be tried, and machines with random prices to plan them for.

They are small in what makes plans many (nodes, dims that can be split), and rich in what makes plans go wrong: values and
parameters with several readers, what follows from parameters alone, dims that are reduced but kept, sums, look-ups,
biases, states, grouped attention, integers, sizes that no axis divides, and sizes that only a phase knows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from unitp.cost import Device, Link, Machine, Pair
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.graph.values import Dim
from unitp.mesh import Mesh

SYMBOLS = ("batch", "seq")


class _Small:
    """A graph under construction. `floats`: values of float32 that may be read again, the running one last."""

    def __init__(self, seed: int, most: int, symbolic: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder(f"small-{seed}")
        self.most, self.symbolic, self.drawn = most, symbolic, 0
        self.floats: list[str] = []
        self.weights: list[str] = []
        self.begin()

    # choosing

    def pick(self, *choices: object) -> object:
        return choices[int(self.rng.integers(len(choices)))]

    def size(self) -> int:
        return int(self.rng.choice([1, 2, 3, 4, 5], p=[0.3, 0.15, 0.25, 0.15, 0.15]))

    def rows(self) -> Dim:
        if self.symbolic and self.rng.random() < 0.7:
            return SYMBOLS[int(self.rng.integers(2))]
        return self.size()

    def shape(self, name: str) -> tuple[Dim, ...]:
        return self.b.types[name].shape

    def value(self) -> str:
        """Return a value to read: most often the last, often one that was read before."""
        return self.floats[-1 if self.rng.random() < 0.5 else int(self.rng.integers(len(self.floats)))]

    def weight(self, *shape: Dim) -> str:
        """Return a parameter of this shape, or a value made of one; it may be one that exists already."""
        fitting = [w for w in self.weights if self.shape(w) == shape]
        if fitting and self.rng.random() < 0.6:
            return str(self.pick(*fitting))
        self.drawn += 1
        name = f"w{self.drawn}"
        self.b.random(name, tuple(int(n) for n in shape), seed=self.drawn, scale=0.5, offset=0.3)
        self.weights.append(name)
        return name

    def static(self, weight: str) -> str:
        """Return a value of the same shape that follows from parameters alone."""
        op = str(self.pick("Relu", "Add", "Softmax", "Identity", "Mul"))
        more = [self.weight(*self.shape(weight))] if op in ("Add", "Mul") else []
        attrs: dict[str, Any] = {"axis": 0} if op == "Softmax" else {}
        self.weights.append(str(self.b.op(op, weight, *more, **attrs)))
        return self.weights[-1]

    def operand(self, *shape: Dim) -> str:
        """Return a parameter of this shape, as it is, transposed, or after an operator."""
        turn = self.rng.random()
        if turn < 0.25 and len(shape) == 2:
            self.weights.append(str(self.b.Transpose(self.weight(*shape[::-1]), perm=(1, 0))))
            return self.weights[-1]
        return self.static(self.weight(*shape)) if turn < 0.4 else self.weight(*shape)

    # beginnings

    def begin(self) -> None:
        starts: list[Callable[[], None]] = [self.given] * 5 + [self.looked_up, self.kept, self.attention, self.cache]
        starts[int(self.rng.integers(len(starts)))]()

    def given(self) -> None:
        self.floats.append(self.b.input("x", "float32", (self.rows(), self.size())))

    def looked_up(self) -> None:
        ids = self.b.input("ids", "int64", (self.rows(),))
        if self.rng.random() < 0.3:
            ids = self.b.Min(ids, ids)
        self.floats.append(str(self.b.Gather(self.weight(self.size() + 2, self.size()), ids, axis=0)))
        if self.rng.random() < 0.3:
            self.b.Cast(ids, to="float32")

    def kept(self) -> None:
        """A state that is added to, and read again."""
        shape = (self.rows(), self.size())
        old, x = self.b.state("old", "float32", shape), self.b.input("x", "float32", shape)
        new = str(self.b.Add(x, old))
        self.b.keep(old, new)
        self.floats += [x, new]

    def cache(self) -> None:
        rows, width = self.rows(), self.size()
        past = self.b.state("past", "float32", (rows, 1, 4, width))
        at = self.b.input("at", "int64", (rows,))
        present = self.b.TensorScatter(past, self.b.input("x", "float32", (rows, 1, 2, width)), at, axis=2)
        self.b.keep(past, present)
        self.floats.append(str(self.b.Slice(present, axes=(2,), starts=(0,), ends=(3,))))

    def attention(self) -> None:
        groups, ratio = int(self.rng.integers(1, 3)), int(self.rng.integers(1, 3))
        q = self.b.input("q", "float32", (1, groups * ratio, 2, 1))
        k = self.b.input("k", "float32", (1, groups, 2, 1))
        v = self.b.Relu(k) if self.rng.random() < 0.5 else k
        self.floats += [k, str(self.b.Attention(q, k, v))]

    # steps

    def unary(self) -> None:
        op = str(self.pick("Relu", "Tanh", "Neg", "Identity"))
        self.floats.append(str(self.b.op(op, self.value())))

    def binary(self) -> None:
        x = self.value()
        fitting = [v for v in self.floats if self.shape(v) == self.shape(x)]
        last = self.shape(x)[-1]
        y = str(self.pick(*fitting)) if self.rng.random() < 0.6 or isinstance(last, str) else self.operand(last)
        self.floats.append(str(self.b.op(str(self.pick("Add", "Mul", "Max", "Sub")), x, y)))

    def matmul(self) -> None:
        x = self.value()
        if isinstance(self.shape(x)[-1], int) and len(self.shape(x)) >= 2:
            self.floats.append(str(self.b.MatMul(x, self.operand(self.shape(x)[-1], self.size()))))

    def gemm(self) -> None:
        x, n = self.value(), self.size()
        if len(self.shape(x)) == 2 and isinstance(self.shape(x)[-1], int):
            y = self.b.Gemm(x, self.weight(self.shape(x)[-1], n), self.operand(n))
            self.floats.append(str(y))

    def inner(self) -> None:
        x = self.value()
        last = self.shape(x)[-1]
        if self.rng.random() < 0.5 and isinstance(last, int):
            self.floats.append(str(self.b.RMSNormalization(x, self.operand(last))))
        else:
            self.floats.append(str(self.b.op(str(self.pick("Softmax", "LogSoftmax")), x, axis=self.dim(x))))

    def reduce(self) -> None:
        x = self.value()
        op = str(self.pick("ReduceSum", "ReduceMax", "ReduceMean"))
        dim = self.dim(x, counted=op == "ReduceMean")
        self.floats.append(str(self.b.op(op, x, axes=(dim,), keepdims=1)))

    def select(self) -> None:
        x = self.value()
        dim = self.dim(x, counted=True)
        if self.rng.random() < 0.5:
            self.b.ArgMax(x, axis=dim, keepdims=int(self.rng.integers(2)))
        else:
            values, _ = self.b.TopK(x, k=int(self.rng.integers(1, int(self.shape(x)[dim]) + 1)), axis=dim)
            self.floats.append(str(values))

    def compare(self) -> None:
        x = self.value()
        fitting = [v for v in self.floats if self.shape(v) == self.shape(x)]
        y = str(self.pick(*fitting))
        self.floats.append(str(self.b.Where(self.b.Less(x, y), x, y)))

    def dim(self, x: str, counted: bool = False) -> int:
        """Return a dim of a value; `counted`: its size must be a number."""
        dims = [d for d, n in enumerate(self.shape(x)) if isinstance(n, int) or not counted]
        return int(self.rng.choice(dims))

    def run(self) -> Graph:
        steps = [*[self.unary] * 2, *[self.binary] * 4, *[self.matmul] * 4, self.gemm, *[self.inner] * 2]
        steps += [self.reduce, self.select, self.compare]
        for _ in range(3 * self.most):
            if len(self.b._nodes) < self.most:
                steps[int(self.rng.integers(len(steps)))]()
        nodes = self.b._nodes
        read = {name for node in nodes for name in node.inputs}
        ends = [out for node in nodes for out in node.outputs if out not in read]
        more = [out for node in nodes for out in node.outputs if out in read and self.rng.random() < 0.15]
        return self.b.graph(*dict.fromkeys([*ends, *more]))


def small_graph(seed: int, most: int = 5, symbolic: bool = False) -> Graph:
    """Return a graph of about `most` nodes, all of which its outputs need. `symbolic`: with dims `batch` or `seq`."""
    return _Small(seed, most, symbolic).run()


def random_machine(rng: np.random.Generator, mesh: Mesh, *, heterogeneous: bool = True) -> Machine:
    """Return a machine on which it is worth splitting tensors of a few elements: some prices are 0, and links differ.

    heterogeneous   devices may differ as well
    """

    def price(low: float, high: float, nothing: float = 0.0) -> float:
        return 0.0 if rng.random() < nothing else float(10.0 ** rng.uniform(low, high))

    def device() -> Device:
        return Device({"float32": price(0, 2), "int64": price(0, 2)}, price(0, 2), price(-2, 1, nothing=0.3))

    def link() -> Link:
        return Link(price(-2, 1, nothing=0.3), price(0, 3), price(-2, 1, nothing=0.3))

    common, own = link(), device()
    classes = {"one": own}
    if heterogeneous and rng.random() < 0.4:
        classes["two"] = device()
    names = [str(n) for n in rng.choice([*classes], mesh.size)] if len(classes) > 1 else []
    a, b = (int(r) for r in rng.choice(mesh.size, 2, replace=False))
    return Machine(
        link_latency_s=common.latency_s,
        link_bytes_per_s=common.bytes_per_s,
        call_s=common.call_s,
        name="random",
        devices={name: classes[name] for name in dict.fromkeys(names or classes)},
        ranks=tuple(names),
        axes={axis: link() for axis, _ in mesh.axes if rng.random() < 0.3},
        pairs=(Pair((min(a, b), max(a, b)), link()),) if rng.random() < 0.2 else (),
    )
