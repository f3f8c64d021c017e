"""Random legal plans, to test the rules with. A small model that is planned by cost is replicated in most cases, which tests nothing.

Every node gets a random assignment of the mesh's axes to its splittable factors, with random cuts: uneven, empty, and
overlapping if the factor is free. Parameters, states, inputs and some values get random layouts of their own. Dims whose
symbol is not bound are split openly, so that one plan serves any size.
"""

from __future__ import annotations

import itertools

import numpy as np

from unitp.graph.graph import Graph
from unitp.graph.ops import Rule, rule_of
from unitp.graph.values import Dim, Node, TensorType
from unitp.layout import Interval, Layout, Split
from unitp.mesh import Mesh
from unitp.plans import Phase, PhasePlan, Plan


def random_intervals(rng: np.random.Generator, parts: int, size: int, overlap: bool) -> tuple[Interval, ...]:
    """Return monotone intervals over `size` rows without a gap; some empty, and overlapping ones if `overlap`."""
    edges = [0, *sorted(int(e) for e in rng.integers(0, size + 1, parts - 1)), size]
    cuts = list(itertools.pairwise(edges))
    if not overlap:
        return tuple(cuts)
    low = high = 0
    out = []
    for a, b in cuts:
        if b > a:
            low = max(low, a - int(rng.integers(0, 3)))
            high = max(high, min(size, b + int(rng.integers(0, 3))))
            out.append((low, high))
        else:
            out.append((a, a))
    return tuple(out)


def random_split(
    rng: np.random.Generator, mesh: Mesh, axes: tuple[str, ...], size: Dim, overlap: bool = False
) -> Split:
    """Return a random split over `size` rows; it is open if that is a symbol."""
    if isinstance(size, str):
        return Split(axes)
    return Split(axes, random_intervals(rng, mesh.count(axes), size, overlap and rng.random() < 0.3))


def random_layout(rng: np.random.Generator, mesh: Mesh, shape: tuple[Dim, ...], partial: bool = False) -> Layout:
    """Return a random layout of a tensor of `shape`; axes in random order, some unused, some partial if allowed."""
    given: dict[int, list[str]] = {}
    sums = []
    for axis in rng.permutation([name for name, _ in mesh.axes]):
        choice = int(rng.integers(-2 if partial else -1, len(shape)))
        if choice >= 0:
            given.setdefault(choice, []).append(str(axis))
        elif choice == -2:
            sums.append(str(axis))
    dims = tuple(
        random_split(rng, mesh, tuple(given[d]), size, overlap=True) if d in given else None
        for d, size in enumerate(shape)
    )
    return Layout(dims, tuple(sorted(sums)))


def random_assignment(rng: np.random.Generator, mesh: Mesh, rule: Rule, dtype: str) -> dict[str, Split]:
    """Return a random legal split of an operator's factors."""
    names = [f for f in rule.factors if rule.splittable(f)]
    if dtype == "bool":
        names = [f for f in names if rule.factors[f].kind in ("free", "inner")]
    given: dict[str, list[str]] = {}
    for axis in rng.permutation([name for name, _ in mesh.axes]):
        if names and rng.random() < 0.8:
            name = names[int(rng.integers(len(names)))]
            given.setdefault(name, []).append(str(axis))
            family = _family(rule.factors[name].kind)
            names = [f for f in names if family is None or _family(rule.factors[f].kind) in (None, family)]
    return {
        name: random_split(rng, mesh, tuple(axes), rule.factors[name].size, rule.factors[name].kind == "free")
        for name, axes in given.items()
    }


def _family(kind: str) -> str | None:
    """Return the family of a kind of reduction; two families cannot be mixed in one operator."""
    return {"sum": "sum", "mask": "sum", "max": "max", "inner": "inner"}.get(kind)


def random_plan(graph: Graph, mesh: Mesh, seed: int, sizes: dict[str, int] | None = None) -> Plan:
    """Return a random legal plan for a graph, for any size of those symbols that `sizes` does not bind."""
    rng = np.random.default_rng(seed)
    bound = sizes or {}

    def shape(type_: TensorType) -> tuple[Dim, ...]:
        return tuple(bound.get(d, d) if isinstance(d, str) else d for d in type_.shape)

    def assignment(node: Node) -> dict[str, Split]:
        rule = rule_of(node.op, node.attrs, [graph.types[n].shape if n else None for n in node.inputs])
        return random_assignment(rng, mesh, rule, graph.types[node.name].dtype)

    nodes = {node.name: assignment(node) for node in graph.nodes}
    values = {name: random_layout(rng, mesh, shape(type_)) for name, type_ in graph.inputs.items()}
    for node in graph.nodes:
        for name in node.outputs:
            if rng.random() < 0.2:
                values[name] = random_layout(rng, mesh, shape(graph.types[name]), graph.types[name].dtype != "bool")
    return Plan(
        graph=graph.hash,
        mesh=mesh,
        parameters={p.name: random_layout(rng, mesh, shape(p.type)) for p in graph.parameters},
        states={s.input: random_layout(rng, mesh, shape(s.type)) for s in graph.states},
        phases=(PhasePlan(Phase("main", bound), nodes, values),),
    )
