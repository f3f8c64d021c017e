"""The candidate splits of every node: operators with a grain seed splits, which spread through the factor maps to a fixpoint.

Attention seeds splits of its heads: by single heads, by whole KV groups, and by whole ranks per group if there are more ranks than
groups. They reach the projections around it, the caches and the stored weights. Factors that no split reached are seeded evenly,
contractions first. The candidates of a node are then all ways to give each axis of the mesh to one of its factors, or to none.

If the devices along axes are heterogeneous, every seed is split evenly and by each measure of the devices
(`unitp.planner.choices.proportions`): intervals follow speed or memory in the grain of the operator, and the cost decides. All
splits of one assignment follow the same measure (even, memory, ...); otherwise there would be too many candidates. Each split has a
bit for every measure that it follows.

Roles: an axis with a role splits only dims of that symbol (`dp`: batch); any other axis may split every dim. A split of a symbolic
dim has no intervals until a program is lowered; a phase considers it if it leaves no rank empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from itertools import combinations, pairwise, product
from math import prod
from operator import and_

from unitp.cost import Machine
from unitp.graph.graph import Graph
from unitp.graph.ops import Rule, Term, factor_split, operator, rule_of, term_split
from unitp.graph.values import Node, item_bytes
from unitp.layout import Interval, Split, cuts
from unitp.mesh import Mesh
from unitp.planner.choices.proportions import Weighing, Weights, weighted_cuts, weighted_groups

Assignment = tuple[tuple[str, Split], ...]
"""(Factor, split) pairs in the order of factor names: one way to split a node's work."""

ROLES: Mapping[str, str] = {"dp": "batch"}
REDUCED = ("sum", "max", "mask", "inner")
ANY = -1
"""The bits of all measures, for a split that is even under each of them."""


def even_or_weighted(parts: int, size: int, unit: int = 1, weights: Weights | None = None) -> tuple[Interval, ...]:
    """Return `parts` intervals over `size` rows in whole `unit`s: weighted, or even without weights."""
    return weighted_cuts(weights, size, unit) if weights else cuts(parts, size, unit)


def head_cuts(
    parts: int, heads: int, groups: int, weights: Weights | None = None
) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield the intervals of query heads: by single heads, by whole KV groups, and by whole ranks if there are more than groups."""
    ratio = heads // groups
    yield even_or_weighted(parts, heads, weights=weights)
    yield even_or_weighted(parts, heads, ratio, weights)
    if parts > groups:
        edges = [0]
        for number, (a, b) in enumerate(weighted_groups(weights, groups) if weights else cuts(groups, parts)):
            inside = even_or_weighted(b - a, ratio, weights=weights and weights[a:b])
            edges += [number * ratio + stop for _, stop in inside]
        yield tuple(pairwise(edges))


class Candidates:
    """The candidates of every node of a graph on a mesh.

    machines   their heterogeneous devices weight the splits
    splits     by (node, factor), the splits that reached a factor, each with the bits of the measures that it follows
    """

    def __init__(
        self, graph: Graph, mesh: Mesh, roles: Mapping[str, str] = ROLES, machines: Sequence[Machine] = ()
    ) -> None:
        self.graph, self.mesh, self.roles = graph, mesh, roles
        self.axes = tuple(name for name, size in mesh.axes if size > 1)
        sized = [axis for axis in self.axes if axis not in roles]
        self._weighing = Weighing(machines, mesh, sized, parameter_bytes(graph)) if sized else None
        self._families: dict[tuple[str, ...], dict[Weights | None, int]] = {}
        types = graph.types
        self.rules: dict[str, Rule] = {
            n.name: rule_of(n.op, n.attrs, [types[i].shape if i else None for i in n.inputs]) for n in graph.nodes
        }
        self.splits: dict[tuple[str, str], dict[Split, int]] = {}
        self._dims: dict[tuple[str, int], dict[Split, int]] = {}
        self._seed()

    @cached_property
    def _uses(self) -> dict[tuple[str, int], list[tuple[str, Term]]]:
        """The terms, as (node, term), in which each dim of a value appears."""
        uses: dict[tuple[str, int], list[tuple[str, Term]]] = {}
        for node in self.graph.nodes:
            for value, dim, term in _terms(node, self.rules[node.name]):
                uses.setdefault((value, dim), []).append((node.name, term))
        return uses

    @cached_property
    def _places(self) -> dict[tuple[str, str], list[tuple[str, int, Term]]]:
        """The dims, as (value, dim, term), in which each factor of a node appears."""
        places: dict[tuple[str, str], list[tuple[str, int, Term]]] = {}
        for node in self.graph.nodes:
            for value, dim, term in _terms(node, self.rules[node.name]):
                places.setdefault((node.name, term.factors[0]), []).append((value, dim, term))
        return places

    def _axis_sets(self, size: int | str) -> Iterator[tuple[str, ...]]:
        """Yield the sets of axes that may together split a factor of this size, each in mesh order."""
        if isinstance(size, str):
            fitting = [a for a in self.axes if self.roles.get(a, size) == size]
        else:
            fitting = [a for a in self.axes if a not in self.roles and size > 1]
        for count in range(1, len(fitting) + 1):
            yield from combinations(fitting, count)

    def _seed(self) -> None:
        for node in self.graph.nodes:
            if (grain_of := operator(node.op).grain) is not None:
                grain = grain_of([self.graph.types[name].shape if name else None for name in node.inputs])
                for axes in self._axis_sets(grain.units):
                    for weights, measures in self._weights(axes).items():
                        for cut in head_cuts(self.mesh.count(axes), grain.units, grain.groups, weights):
                            self._add(node.name, grain.factor, Split(axes, cut), measures)
        self._seed_even(n for n in self.graph.nodes if operator(n.op).kind == "matmul")
        self._seed_even(self.graph.nodes)

    def _seed_even(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            rule = self.rules[node.name]
            for name, factor in rule.factors.items():
                if not rule.splittable(name):
                    continue
                have = {split.axes for split in self.splits.get((node.name, name), ())}
                for axes in self._axis_sets(factor.size):
                    if axes not in have:
                        for split, measures in self._cuts(axes, factor.size):
                            self._add(node.name, name, split, measures)

    def _cuts(self, axes: tuple[str, ...], size: int | str) -> Iterator[tuple[Split, int]]:
        """Yield the splits of a factor that no grain reached, with their measures: even and weighted; a symbolic size only even."""
        if isinstance(size, str):
            yield Split(axes), ANY
            return
        for weights, measures in self._weights(axes).items():
            yield Split(axes, even_or_weighted(self.mesh.count(axes), size, weights=weights)), measures

    def _weights(self, axes: tuple[str, ...]) -> dict[Weights | None, int]:
        """Return the weights of the coordinates over `axes`, with the bits of their measures; the first, None, is even."""
        if axes not in self._families:
            self._families[axes] = self._weighing.families(axes) if self._weighing else {None: ANY}
        return self._families[axes]

    def _add(self, node: str, name: str, split: Split, measures: int) -> None:
        """Give a factor a split, and spread it through the graph until nothing is new."""
        work = [(node, name, split)]
        while work:
            at, factor, cut = work.pop()
            rule = self.rules[at]
            known = self.splits.setdefault((at, factor), {})
            overlapping = cut.overlaps and rule.factors[factor].kind in REDUCED
            if not measures & ~known.get(cut, 0) or not rule.splittable(factor) or overlapping:
                continue
            known[cut] = known.get(cut, 0) | measures
            for value, dim, term in self._places.get((at, factor), ()):
                spread = term_split(rule, term, {factor: cut})
                seen = self._dims.setdefault((value, dim), {})
                if spread is None or not measures & ~seen.get(spread, 0):
                    continue
                seen[spread] = seen.get(spread, 0) | measures
                for other, place in self._uses.get((value, dim), ()):
                    back = factor_split(self.rules[other], place, spread)
                    if back is not None:
                        work.append((other, place.factors[0], back))

    def of(self, node: Node, sizes: Mapping[str, int]) -> list[Assignment]:
        """Return all ways to split a node's work in a phase of these sizes; the first does not split it."""
        return [a for a in self._enumerate(node.name) if self._legal(node, a) and self._fills(node, a, sizes)]

    def _fills(self, node: Node, assignment: Assignment, sizes: Mapping[str, int]) -> bool:
        """Say whether every rank has a row of each symbolic dim that is split."""
        factors = self.rules[node.name].factors
        named = ((split, factors[f].size) for f, split in assignment)
        return all(self.mesh.count(s.axes) <= sizes[size] for s, size in named if isinstance(size, str))

    def _enumerate(self, name: str) -> Iterator[Assignment]:
        factors = [f for f in self.rules[name].factors if self.splits.get((name, f))]
        for owners in product([None, *factors], repeat=len(self.axes)):
            given: dict[str, tuple[str, ...]] = {}
            for axis, owner in zip(self.axes, owners, strict=True):
                if owner is not None:
                    given[owner] = (*given.get(owner, ()), axis)
            choices = [[s for s in self.splits[name, f] if s.axes == axes] for f, axes in given.items()]
            for chosen in product(*choices):
                made = tuple(sorted(zip(given, chosen, strict=True)))
                if reduce(and_, (self.splits[name, factor][split] for factor, split in made), ANY):
                    yield made

    def _legal(self, node: Node, assignment: Assignment) -> bool:
        """Say whether the reductions agree: a value is not partial by sum and maximum at once, and a bool is never partial."""
        kinds = {self.rules[node.name].factors[f].kind for f, _ in assignment}
        if len(kinds & {"sum", "mask", "max"}) > 1 or ("inner" in kinds and kinds & {"sum", "mask", "max"}):
            return False
        return not (kinds & {"sum", "mask", "max"} and self.graph.types[node.name].dtype == "bool")


def _terms(node: Node, rule: Rule) -> Iterator[tuple[str, int, Term]]:
    for value, operand in zip((*node.inputs, *node.outputs), (*rule.inputs, *rule.outputs), strict=True):
        for dim, term in enumerate(operand or ()):
            if term.factors:
                yield value, dim, term


def parameter_bytes(graph: Graph) -> int:
    """Return the bytes of all parameters whose shapes have no symbols."""
    types = (p.type for p in graph.parameters if all(isinstance(dim, int) for dim in p.type.shape))
    return sum(prod(map(int, t.shape)) * item_bytes(t.dtype) for t in types)
