"""The plan: which rank holds what in each phase, as a value. It is a decision; what it is worth stands in its certificate.

Parameters, states and nodes that depend on parameters alone have one layout; activations have one per phase. A node's entry is the
split of its factors (a node that is not split has no entry). `values` holds the layouts of inputs and of values that several nodes
read. Splits of the batch are open: lowering a program binds them to its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from unitp.errors import PlanError, did_you_mean
from unitp.graph.graph import Graph
from unitp.graph.ops import rule_of
from unitp.graph.values import Node
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.texts import cut, shortened

MOST_SIZE = 1 << 32
"""The largest size of a dim in a phase. The memory that a program needs is counted with 64 bits."""
MOST_WEIGHT = 1e12
ANEW = "Make it anew with `unitp plan`."
"""The hint for a plan file that cannot be used."""


class Phase(msgspec.Struct, frozen=True):
    """One set of sizes, by symbol, and the weight of its seconds in the objective."""

    name: str
    sizes: dict[str, int]
    weight: float = 1.0


class PhasePlan(msgspec.Struct, frozen=True):
    """The choices for a phase: node -> factor -> split, and value -> layout. `seconds` are predicted for one call."""

    phase: Phase
    nodes: dict[str, dict[str, Split]] = {}
    values: dict[str, Layout] = {}
    seconds: float = 0.0


class Plan(msgspec.Struct, frozen=True):
    """The layouts and splits of a model's graph on a mesh. `graph` is the hash of that graph; others are refused (`require`)."""

    graph: str
    mesh: Mesh
    parameters: dict[str, Layout]
    states: dict[str, Layout]
    phases: tuple[PhasePlan, ...]
    model: str = ""

    def phase(self, name: str) -> PhasePlan:
        """Return the choices for a phase. Raises PlanError if the plan has no phase of this name."""
        for found in self.phases:
            if found.phase.name == name:
                return found
        raise PlanError(
            f'the plan has no phase "{name}"', hint=f"It has {', '.join(p.phase.name for p in self.phases)}."
        )


def phase_problem(phase: Phase) -> str:
    """Return what is wrong with the sizes or the weight of a phase, or an empty text."""
    for name, size in phase.sizes.items():
        if type(size) is not int or not 1 <= size <= MOST_SIZE:
            return f"phase {cut(phase.name)} has {cut(name)}={shortened(size)}, which must be from 1 to {MOST_SIZE}"
    if not 0 <= phase.weight <= MOST_WEIGHT:
        return f"phase {cut(phase.name)} has weight={phase.weight:g}, which must be from 0 to {MOST_WEIGHT:g}"
    return ""


def require(plan: Plan, graph: Graph) -> None:
    """Raise PlanError, with all problems at once, if `plan` was made for another graph than `graph`, or is damaged."""
    if plan.graph != graph.hash:
        raise PlanError(
            f"the plan was made for another graph ({plan.graph}{f', {plan.model}' if plan.model else ''}); "
            f"{graph.name} is {graph.hash}",
            hint="Plan this model anew with `unitp plan`.",
        )
    if problems := list(_problems(plan, graph)):
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise PlanError(f"the plan for {graph.name} is damaged: {'; '.join(problems[:5])}{more}", hint=ANEW)


def _problems(plan: Plan, graph: Graph) -> Iterator[str]:
    yield from _compare_names("parameter", plan.parameters, [p.name for p in graph.parameters])
    yield from _compare_names("state", plan.states, [s.input for s in graph.states])
    tables = [plan.parameters, plan.states, *(p.values for p in plan.phases)]
    for name, layout in ((name, layout) for table in tables for name, layout in table.items()):
        if name not in graph.types:
            yield f'there is no value "{name}"'
        elif len(layout.dims) != (dims := len(graph.types[name].shape)):
            yield f"{name} has {dims} dims, but its layout has {len(layout.dims)}"
        else:
            pairs = zip(layout.dims, graph.types[name].shape, strict=True)
            yield from (f"{name}: {p}" for s, size in pairs if s for p in _size_problems(s, size))
    nodes = {node.name: node for node in graph.nodes}
    for phase in plan.phases:
        if missing := [s for s in graph.symbols if s not in phase.phase.sizes]:
            yield f"phase {phase.phase.name} gives no size for {', '.join(missing)}"
        if unknown := [s for s in phase.phase.sizes if s not in graph.symbols]:
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            named = ", ".join(cut(s) for s in unknown[:3])
            yield f"phase {phase.phase.name} gives sizes that {graph.name} does not have: {named}{more}"
        for name, splits in phase.nodes.items():
            yield from _node_problems(name, nodes.get(name), splits, graph)


def _compare_names(what: str, planned: dict[str, Layout], known: list[str]) -> Iterator[str]:
    yield from (f'it has no layout for {what} "{name}"' for name in known if name not in planned)
    yield from (f'there is no {what} "{name}"' for name in planned if name not in known)


def _node_problems(name: str, node: Node | None, splits: dict[str, Split], graph: Graph) -> Iterator[str]:
    if node is None:
        yield f'there is no node "{name}"'
        return
    rule = rule_of(node.op, node.attrs, [graph.types[n].shape if n else None for n in node.inputs])
    used = [axis for split in splits.values() for axis in split.axes]
    if len(set(used)) < len(used):
        yield f"node {name} uses an axis twice"
    for factor, split in splits.items():
        if factor not in rule.factors:
            yield f'node {name} has no factor "{factor}" ({did_you_mean(factor, rule.factors)})'
        elif not rule.splittable(factor):
            yield f"factor {factor} of node {name} cannot be split"
        else:
            yield from (f"{name}, factor {factor}: {p}" for p in _size_problems(split, rule.factors[factor].size))


def _size_problems(split: Split, size: int | str) -> Iterator[str]:
    """Yield what is wrong with a split of a dim of `size` rows (a symbol: any number)."""
    if isinstance(size, int) and not split.open and (stop := max(b for _, b in split.intervals)) != size:
        yield f"{split} splits {stop} rows, but there are {size}"


def unsplit(graph: Graph, phases: Sequence[Phase]) -> Plan:
    """Return the plan for one rank, which splits nothing."""
    return Plan(
        graph=graph.hash,
        mesh=Mesh(),
        parameters={p.name: Layout.replicated(len(p.type.shape)) for p in graph.parameters},
        states={s.input: Layout.replicated(len(s.type.shape)) for s in graph.states},
        phases=tuple(PhasePlan(p) for p in phases),
    )
