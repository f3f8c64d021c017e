"""The graph that a calibration runs, and what is measured with each of its outputs.

Operators are measured between real compute, as the difference of two chains: blocks of a product with its own weight (which evicts
everything else from the processor's caches), and the same blocks with one more operator. Both have the same number of blocks, so
that the overhead of a framework for each repeated part of a program (a traced function, a segment) cancels. A product is the
difference of blocks with more and with fewer products. A collective is the difference of a chain whose products are split over the
ranks, and a chain that does the same local work on each rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from unitp.frontends.builder import Builder, Maker
from unitp.graph.graph import Graph
from unitp.graph.source import RandomSource
from unitp.layout import Layout, Split, cuts
from unitp.mesh import Mesh
from unitp.plans import Phase, PhasePlan, Plan

WIDTH, HIDDEN, SMALL, LARGE = 576, 1536, 192, 16384
HEADS, GROUPS, HEAD = 9, 3, 64
VOCABULARY = 4096
MANY, FEW = 24, 6
"""The blocks of a chain with one row, and with more rows."""
SHORT, LONG, SEEN = 512, 2048, 0.75
"""Lengths of caches, and the part of them that is valid on average: programs read it rounded up to a power of two."""
ROWS = 256


class Difference(NamedTuple):
    """Two outputs of the graph whose times differ by `times` runs of an operator or collective.

    what                  the operator, or the kind of collective
    more, less            the output with it and the output without it
    rows, less_rows       the rows of both (0: `less` has the same)
    flops, bytes          of one run, as the cost model counts them; `bytes` of a collective are those of the whole array
    reshapes, additions   the number of these that each run needs in addition
    """

    what: str
    more: str
    less: str
    rows: int
    times: int
    flops: float
    bytes: float
    less_rows: int = 0
    dtype: str = "float32"
    reshapes: int = 0
    additions: int = 0


class Parts:
    """The `graph` of a calibration, its `plan` for a number of ranks, and the `differences` to measure (`quick`: fewer of them).

    `product`, `addition` and `movement` name the operators whose rates stand for others.
    """

    def __init__(self, ranks: int, quick: bool = False) -> None:
        self.ranks, self.quick = ranks, quick
        self.mesh = Mesh(tp=ranks)
        self.differences: list[Difference] = []
        self.outputs: dict[str, None] = {}
        self.nodes: dict[str, dict[str, Split]] = {}
        self.parameters: dict[str, Layout] = {}
        b = self.b = Builder("calibration")
        self.product, self.addition, self.movement = b.MatMul.op, b.Add.op, b.Transpose.op
        self.x = b.input("x", "float32", (1, "rows", WIDTH))
        self.positions = b.input("positions", "int64", (1, "rows"))
        self.ids = b.input("ids", "int64", (1, "rows"))
        self.lengths = [b.input(f"length_{n}", "int64", (1,)) for n in (ROWS, SHORT, LONG)]
        self.seed = 0
        self.blocks = [self.transposed(f"block_{i}", WIDTH, WIDTH) for i in range(MANY)]
        self.empty = self.output(str(b.Add(self.x, self.x)))
        self.base = self.chain(lambda x, i: x)
        self.operators()
        self.products()
        if ranks > 1:
            self.collectives()
        self.graph: Graph = b.graph(*self.outputs)
        self.plan = self._plan()

    # helpers

    def weight(self, name: str, rows: int, columns: int, dtype: str = "float32") -> str:
        """Add a parameter of random numbers, scaled so that a product has the magnitude of its input."""
        self.seed += 1
        return self.b.parameter(name, (rows, columns), RandomSource(self.seed, (rows, columns), rows**-0.5), dtype)

    def transposed(self, name: str, k: int, n: int, dtype: str = "float32") -> str:
        """Add a weight that is stored as [n, k], as in models, and return its transpose [k, n]."""
        self.seed += 1
        stored = self.b.parameter(name, (n, k), RandomSource(self.seed, (n, k), k**-0.5), dtype)
        return str(self.b.Transpose(stored, perm=(1, 0)))

    def output(self, name: str) -> str:
        self.outputs[name] = None
        return name

    def chain(self, operator: Callable[[str, int], str]) -> tuple[str, str]:
        """Add a chain of blocks of a product and `operator`, and return the outputs after `FEW` and `MANY` blocks."""
        x, found = self.x, []
        for i in range(MANY):
            x = operator(str(self.b.MatMul(x, self.blocks[i])), i)
            if i + 1 in (FEW, MANY):
                found.append(self.output(x))
        return found[0], found[1]

    def operator(
        self,
        what: Maker,
        add: Callable[[str, int], str],
        flops: float,
        size: float,
        *,
        reshapes: int = 0,
        additions: int = 0,
    ) -> None:
        """Add the differences for an operator that does `flops` and moves `size` bytes for each row."""
        few, many = self.chain(add)
        for n in (1, ROWS):
            more, less, count = (many, self.base[1], MANY) if n == 1 else (few, self.base[0], FEW)
            self.differences.append(
                Difference(what.op, more, less, n, count, flops * n, size * n, reshapes=reshapes, additions=additions)
            )

    # what is measured

    def operators(self) -> None:
        b, x0, row = self.b, self.x, 4.0 * WIDTH
        scale = b.random("scale", (WIDTH,), seed=99, offset=1.0)
        bias = b.random("bias", (WIDTH,), seed=98)
        four = (1, "rows", HEADS, HEAD)
        flat = (1, "rows", WIDTH)
        self.operator(b.Add, lambda x, i: str(b.Add(x, x0)), WIDTH, 3 * row)
        self.operator(b.Mul, lambda x, i: str(b.Mul(x, x0)), WIDTH, 3 * row)
        self.operator(b.Swish, lambda x, i: str(b.Swish(x)), 10 * WIDTH, 2 * row)
        self.operator(b.RMSNormalization, lambda x, i: str(b.RMSNormalization(x, scale)), 5 * WIDTH, 2 * row)

        def moved(x: str, i: int) -> str:
            y = b.Transpose(b.Reshape(x, shape=four), perm=(0, 2, 1, 3))
            return str(b.Reshape(y, shape=flat))

        self.operator(b.Transpose, moved, WIDTH, 2 * row)
        cos, sin = (b.random(f"rope_{part}", (LONG, HEAD // 2), seed=97) for part in ("cos", "sin"))
        heads = (1, HEADS, "rows", HEAD)

        def turned(x: str, i: int) -> str:
            y = b.RotaryEmbedding(b.Reshape(x, shape=heads), cos, sin, self.positions)
            return str(b.Reshape(y, shape=flat))

        self.operator(b.RotaryEmbedding, turned, 4 * WIDTH, 2 * row, reshapes=2)
        table = b.random("table", (VOCABULARY, WIDTH), seed=96)
        self.operator(
            b.Gather, lambda x, i: str(b.Add(x, b.Gather(table, self.ids, axis=0))), WIDTH, 2 * row, additions=1
        )
        if not self.quick:
            self.operator(b.Gelu, lambda x, i: str(b.Gelu(x)), 10 * WIDTH, 2 * row)
            self.operator(b.Softmax, lambda x, i: str(b.Softmax(x)), 15 * WIDTH, 2 * row)
            norm = b.LayerNormalization
            self.operator(norm, lambda x, i: str(norm(x, scale, bias)), 8 * WIDTH, 2 * row)
        self.attention()

    def attention(self) -> None:
        b, flat, heads = self.b, (1, "rows", WIDTH), (1, HEADS, "rows", HEAD)
        for length, at, rows in zip((ROWS, SHORT, LONG), self.lengths, ((ROWS // 4, ROWS), (1,), (1,)), strict=True):
            shape = (1, GROUPS, length, HEAD)
            caches = [b.random(f"cache_{length}_{i}", shape, seed=200 + i) for i in range(2 * FEW)]

            def attended(x: str, i: int, caches: list[str] = caches, at: str = at) -> str:
                k, v = caches[2 * (i % FEW)], caches[2 * (i % FEW) + 1]
                y = b.Attention(b.Reshape(x, shape=heads), k, v, "", "", "", at, is_causal=1)
                return str(b.Reshape(y, shape=flat))

            few, many = self.chain(attended)
            for n in rows:
                more, less, count = (many, self.base[1], MANY) if n == 1 else (few, self.base[0], FEW)
                flops, moved = 4.0 * WIDTH * n * length, 4.0 * (2 * WIDTH * n + 2 * GROUPS * HEAD * length)
                self.differences.append(Difference(b.Attention.op, more, less, n, count, flops, moved, reshapes=2))

    def products(self) -> None:
        """Add pairs of products, to another width and back, in blocks of one addition and several pairs."""
        b = self.b
        x0, wide = self.x, None if self.quick else b.input("wide", "float64", (1, "rows", WIDTH))
        mid = [self.pair(f"mid_{i}", HIDDEN) for i in range(12)]
        self.pairs(x0, mid, HIDDEN, 3, (1, 4), (1,))
        self.pairs(x0, mid, HIDDEN, 1, (0, 1), (ROWS,) if self.quick else (4, 16, 64, ROWS))
        small = [self.pair(f"small_{i}", SMALL) for i in range(15)]
        self.pairs(x0, small, SMALL, 3, (1, 5), (1,))
        if wide is not None:
            large = str(b.MatMul(self.empty, self.transposed("large", WIDTH, LARGE)))
            flops, size = 2.0 * WIDTH * LARGE, 4.0 * (WIDTH * LARGE + WIDTH + LARGE)
            self.differences.append(Difference(self.product, self.output(large), self.empty, 1, 1, flops, size))
            double = [self.pair(f"double_{i}", HIDDEN, "float64") for i in range(2)]
            self.pairs(wide, double, HIDDEN, 2, (0, 1), (1, ROWS), "float64")

    def pair(self, name: str, between: int, dtype: str = "float32") -> tuple[str, str]:
        up, down = (WIDTH, between), (between, WIDTH)
        return self.transposed(f"{name}_up", *up, dtype), self.transposed(f"{name}_down", *down, dtype)

    def pairs(
        self,
        x0: str,
        weights: list[tuple[str, str]],
        between: int,
        blocks: int,
        counts: tuple[int, int],
        rows: tuple[int, ...],
        dtype: str = "float32",
    ) -> None:
        found = []
        for count in counts:
            x = x0
            for block in range(blocks):
                x = str(self.b.Add(x, x0))
                for up, down in weights[block * max(counts) :][:count]:
                    x = str(self.b.MatMul(self.b.MatMul(x, up), down))
            found.append(self.output(x))
        less, more = found
        extra = 2 * blocks * (counts[1] - counts[0])
        for n in rows:
            flops, size = 2.0 * n * WIDTH * between, 4.0 * (WIDTH * between + n * (WIDTH + between))
            self.differences.append(Difference(self.product, more, less, n, extra, flops, size, dtype=dtype))

    def collectives(self) -> None:
        """Add chains of products with collectives, and one that does the local work of a rank without them."""
        b, blocks = self.b, 6
        part = cuts(self.ranks, WIDTH)
        split, local = Split(("tp",), part), part[0][1]
        x, alone = self.x, []
        for i in range(2 * blocks):
            shape = (WIDTH, local) if i % 2 == 0 else (local, WIDTH)
            x = str(b.MatMul(x, self.weight(f"alone_{i}", *shape)))
            alone.append(x)
        base = self.output(alone[2 * blocks - 1]), self.output(alone[blocks - 1])
        columns = [self.held(f"columns_{i}", Layout((None, split))) for i in range(blocks)]
        rows = [self.held(f"rows_{i}", Layout((split, None))) for i in range(blocks)]
        reduced = gathered = scattered = self.x
        for i in range(blocks):
            reduced = self.split(self.split(reduced, columns[i], n=split), rows[i], k=split)
            gathered = self.split(gathered, columns[i], n=split)
            scattered = self.split(scattered, rows[i], k=split)
            self.nodes[f"cut_{i}"] = {"d2": split}
            scattered = str(b.Identity(scattered, name=f"cut_{i}"))
        ends = {
            "all_reduce": (reduced, base[0], blocks),
            "all_gather": (gathered, base[1], blocks - 1),  # the last product is left split
            "reduce_scatter": (scattered, base[1], blocks),
        }
        sizes = (1, 16, 64, ROWS, 2 * ROWS)
        for kind, (more, less, count) in ends.items():
            for n in (1, 64, 2 * ROWS) if self.quick else sizes:
                self.differences.append(Difference(kind, self.output(more), less, n, count, 0.0, 4.0 * n * WIDTH))
        exchanged = self.x
        for i in range(FEW):
            by_rows = Split(("tp",))
            exchanged = self.split(exchanged, self.blocks[i], m=by_rows)
            self.nodes[f"turned_{i}"] = {"d2": split}
            exchanged = str(b.Identity(exchanged, name=f"turned_{i}"))
        for n in (1, ROWS // 2) if self.quick else (1, 16, ROWS // 2):
            whole = n * self.ranks
            size = 4.0 * whole * WIDTH / self.ranks
            self.differences.append(
                Difference("all_to_all", self.output(exchanged), self.base[0], whole, 2 * FEW - 1, 0.0, size, n)
            )

    def held(self, name: str, layout: Layout) -> str:
        self.parameters[name] = layout
        return self.weight(name, WIDTH, WIDTH)

    def split(self, x: str, weight: str, **factors: Split) -> str:
        """Add a product whose factors are split."""
        made = str(self.b.MatMul(x, weight))
        self.nodes[made] = dict(factors)
        return made

    def _plan(self) -> Plan:
        whole = {p.name: Layout.replicated(len(p.type.shape)) for p in self.graph.parameters}
        phase = PhasePlan(Phase("main", {"rows": 1}), self.nodes)
        return Plan(self.graph.hash, self.mesh, {**whole, **self.parameters}, {}, (phase,))
