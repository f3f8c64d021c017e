"""The plan: which rank holds what in each phase, and what that should cost, as a value and as a small, stable JSON file.

Parameters, states and nodes that depend on parameters alone have one layout; activations have one per phase. A node's entry is the
split of its factors (a node that is not split has no entry). `values` holds the layouts of inputs and of values that several nodes
read. Splits of the batch are open: lowering a program binds them to its size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from unitp.errors import MeshError, PlanError, did_you_mean
from unitp.files import parse_json, read_bytes
from unitp.graph.graph import Graph
from unitp.graph.ops import rule_of
from unitp.graph.values import Node
from unitp.host import writing
from unitp.layout import Layout, Split, parse_layout, parse_split
from unitp.mesh import Mesh
from unitp.texts import cut, shortened

SCHEMA = 2
OLDER = {1: "in its objective, bound and gap, every byte held had a price"}
"""Why plans of an older schema are not read."""
MOST_BYTES = 8 << 20
"""Of a file. The plan of Llama 3.1 405B on 64 ranks has 600 kB."""
MOST_SIZE = 1 << 32
"""Of a dim of a phase. The memory that a program needs is counted with 64 bits."""
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


class Unused(msgspec.Struct, frozen=True):
    """An axis over which `phases` split nothing, and the cost of the best plan in which they split all products over it.

    objective_s, seconds   the objective, and the seconds of one call of each phase, under that plan
    """

    axis: str
    phases: tuple[str, ...]
    objective_s: float
    seconds: dict[str, float]


class Certificate(msgspec.Struct, frozen=True):
    """How good a plan is among those that satisfy `pins` and in which no rank needs more than `memory_limit` bytes.

    objective_s        the sum over phases of weight times seconds
    lower_bound_s      a lower bound on the objective of plans with one layout per parameter (`unitp.planner.problem.one_layout`)
    any_bound_s        a lower bound even if parameters may have several layouts (0: unknown)
    fastest_s          the least objective found; of the plans within 0.1 % of it, the one that holds fewest bytes is taken
    gap                the relative gap to the lower bound (of bytes, if memory was minimised)
    solver, elapsed_s  how the plan was found, and the seconds that took
    machine            the hash of the cost model
    priced_on          its numbers that differ from the defaults (`unitp.cost.record`)
    objective          what was minimised: "time" or "memory"
    peak_bytes         if memory was minimised, the bytes of the rank that needs most; else 0
    bound_bytes        a lower bound on `peak_bytes` of every plan
    held_bytes         bytes of parameters, copies of them and states that a rank holds, the mean over ranks
    held_bound_bytes   a lower bound on `held_bytes` of every plan that is as fast (0: unknown)
    unused             axes that phases leave unused, with the cost of using them
    """

    objective_s: float
    lower_bound_s: float
    gap: float
    solver: str
    elapsed_s: float
    machine: str = ""
    pins: tuple[str, ...] = ()
    objective: str = "time"
    memory_limit: int | None = None
    peak_bytes: int = 0
    bound_bytes: int = 0
    priced_on: dict[str, Any] = {}
    unused: tuple[Unused, ...] = ()
    fastest_s: float = 0.0
    any_bound_s: float = 0.0
    held_bytes: float = 0.0
    held_bound_bytes: float = 0.0


class Plan(msgspec.Struct, frozen=True):
    """The layouts and splits of a model's graph on a mesh. `graph` is the hash of that graph; others are refused (`require`)."""

    graph: str
    mesh: Mesh
    parameters: dict[str, Layout]
    states: dict[str, Layout]
    phases: tuple[PhasePlan, ...]
    certificate: Certificate
    model: str = ""

    def phase(self, name: str) -> PhasePlan:
        """Return the choices for a phase. Raises PlanError if the plan has no phase of this name."""
        for found in self.phases:
            if found.phase.name == name:
                return found
        raise PlanError(
            f'the plan has no phase "{name}"', hint=f"It has {', '.join(p.phase.name for p in self.phases)}."
        )


class _File(msgspec.Struct, forbid_unknown_fields=True):
    schema: int
    unitp: str
    model: str
    graph: str
    mesh: dict[str, int]
    splits: dict[str, str]
    parameters: dict[str, str]
    states: dict[str, str]
    phases: list[_PhaseFile]
    certificate: Certificate


class _PhaseFile(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    sizes: dict[str, int]
    weight: float
    seconds: float
    nodes: dict[str, dict[str, str]]
    values: dict[str, str]


class _Table:
    """Names the splits of a plan in order of appearance, and writes layouts with these names: `-,s1` for `-,tp[0:5 5:9]`."""

    def __init__(self) -> None:
        self.names: dict[Split, str] = {}

    def split(self, split: Split) -> str:
        return self.names.setdefault(split, f"s{len(self.names) + 1}")

    def layout(self, layout: Layout) -> str:
        return layout.text(self.split)


def encode(plan: Plan) -> bytes:
    """Return the plan as indented JSON."""
    table = _Table()
    parameters = {name: table.layout(at) for name, at in plan.parameters.items()}
    states = {name: table.layout(at) for name, at in plan.states.items()}
    phases = [
        _PhaseFile(
            p.phase.name,
            p.phase.sizes,
            p.phase.weight,
            p.seconds,
            {node: {f: table.split(s) for f, s in splits.items()} for node, splits in p.nodes.items()},
            {value: table.layout(at) for value, at in p.values.items()},
        )
        for p in plan.phases
    ]
    splits = {name: str(split) for split, name in table.names.items()}
    file = _File(
        SCHEMA,
        version("unitp"),
        plan.model,
        plan.graph,
        plan.mesh.sizes,
        splits,
        parameters,
        states,
        phases,
        plan.certificate,
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=1)


def save(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write a plan to a file. Raises PlanError if it cannot be written, and HostError if the disk is full."""
    with writing(path, "the plan", PlanError):
        Path(path).write_bytes(encode(plan))


def load(path: str | os.PathLike[str]) -> Plan:
    """Read a plan. Raises PlanError for a missing, truncated or foreign file, or another schema."""
    return decode(read_bytes(path, PlanError, most=MOST_BYTES, what="the plan "), str(path))


def decode(data: bytes, where: str = "plan") -> Plan:
    """A plan from its file's bytes. What can be judged without the graph is judged: splits have no gap and fit the mesh."""
    head = parse_json(data, f"{where} is not a plan: it", PlanError, hint=ANEW)
    if "schema" not in head:
        raise PlanError(f"{where} is not a plan", hint=ANEW)
    if (schema := head["schema"]) != SCHEMA:
        why = f": {OLDER[schema]}" if isinstance(schema, int) and schema in OLDER else ""
        raise PlanError(f"{where} has plan schema {shortened(schema)}, but this unitp reads {SCHEMA}{why}", hint=ANEW)
    try:
        file = msgspec.convert(head, _File)
    except msgspec.ValidationError as error:
        raise PlanError(f"{where} is not a plan: {error}", hint=ANEW) from None
    return _restore(file, where)


def _restore(file: _File, where: str) -> Plan:
    try:
        mesh = Mesh(**file.mesh)
    except MeshError as error:
        raise PlanError(f"{where}: {error.message}") from None
    splits = {name: _split(text, mesh, f"{where}: split {name},") for name, text in file.splits.items()}

    def split(name: str) -> Split:
        if name not in splits:
            raise PlanError(f'it names split "{cut(name)}", which its table does not have')
        return splits[name]

    def layout(text: str) -> Layout:
        try:
            found = parse_layout(text, split)
        except PlanError as error:
            raise PlanError(f"{where}: {error.message}") from None
        used = [*found.axes, *found.partial]
        if len(set(used)) < len(used) or set(used) - set(mesh.sizes):
            raise PlanError(f'{where}: "{cut(text)}" is not a layout on the mesh {mesh}')
        return found

    def factor(name: str) -> Split:
        try:
            return split(name)
        except PlanError as error:
            raise PlanError(f"{where}: {error.message}") from None

    phases = tuple(
        PhasePlan(
            _phase(p, where),
            {node: {f: factor(s) for f, s in factors.items()} for node, factors in p.nodes.items()},
            {value: layout(at) for value, at in p.values.items()},
            p.seconds,
        )
        for p in file.phases
    )
    if len({p.phase.name for p in phases}) < len(phases) or not phases:
        raise PlanError(f"{where} has no phases, or two with the same name", hint=ANEW)
    return Plan(
        graph=file.graph,
        mesh=mesh,
        parameters={name: layout(at) for name, at in file.parameters.items()},
        states={name: layout(at) for name, at in file.states.items()},
        phases=phases,
        certificate=file.certificate,
        model=file.model,
    )


def _phase(phase: _PhaseFile, where: str) -> Phase:
    found = Phase(phase.name, phase.sizes, phase.weight)
    if problem := phase_problem(found):
        raise PlanError(f"{where}: {problem}")
    return found


def phase_problem(phase: Phase) -> str:
    """What is wrong with the numbers of a phase; nothing mostly."""
    for name, size in phase.sizes.items():
        if type(size) is not int or not 1 <= size <= MOST_SIZE:
            return f"phase {cut(phase.name)} has {cut(name)}={shortened(size)}, wanted is from 1 to {MOST_SIZE}"
    if not 0 <= phase.weight <= MOST_WEIGHT:
        return f"phase {cut(phase.name)} has weight={phase.weight:g}, wanted is from 0 to {MOST_WEIGHT:g}"
    return ""


def _split(text: str, mesh: Mesh, what: str) -> Split:
    """Return the split that a text stands for; `what` begins the message. Raises PlanError if it is wrong on this mesh."""
    try:
        split = parse_split(text)
    except PlanError as error:
        raise PlanError(f"{what} {error.message}") from None
    what = f'{what} "{cut(text)}",'
    if set(split.axes) - set(mesh.sizes):
        raise PlanError(f"{what} names an axis that is not on the mesh {mesh}")
    rows = max((stop for _, stop in split.intervals), default=0)
    if not split.open and (problems := Layout((split,)).problems((rows,), mesh)):
        raise PlanError(f"{what} is wrong on the mesh {mesh}: {'; '.join(problems)}")
    return split


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
        certificate=Certificate(0.0, 0.0, 0.0, "one rank", 0.0),
    )
