"""The plan: who holds what, phase by phase, and what it should cost. A small, stable JSON file.

Parameters, states and nodes that depend on parameters alone are laid out once; activations per phase. A node's entry is the
split of its factors (nodes that are not split are not listed); `values` holds the layouts of inputs and of values that
several nodes read. Splits of the batch are open: they are bound to the size at hand when a program is lowered.
"""

from __future__ import annotations

import os
import re
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
from unitp.layout import Layout, Reduction, Split
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


class Phase(msgspec.Struct, frozen=True):
    """One set of sizes, by symbol, and its weight in the objective: a planned call costs `weight` times its seconds."""

    name: str
    sizes: dict[str, int]
    weight: float = 1.0


class PhasePlan(msgspec.Struct, frozen=True):
    """The choice for a phase: node -> factor -> split, value -> layout; `seconds` predicted for one call."""

    phase: Phase
    nodes: dict[str, dict[str, Split]] = {}
    values: dict[str, Layout] = {}
    seconds: float = 0.0


class Unused(msgspec.Struct, frozen=True):
    """An axis over which `phases` split nothing, and what the best plan costs in which they split all products over it.

    `seconds`: of a call of each phase then.
    """

    axis: str
    phases: tuple[str, ...]
    objective_s: float
    seconds: dict[str, float]


class Certificate(msgspec.Struct, frozen=True):
    """How good the plan is: objective and lower bound in seconds, their relative gap, what found it and how long that took.

    `fastest_s`: the least objective that was found; plans within 0.1 % of it count as equal, and the one that holds least is
    taken. `held_bytes` is what a rank holds of parameters, copies of them and states, the mean over ranks, and
    `held_bound_bytes` what no such plan is below (0: not known). Plans that hold a parameter in several layouts are considered
    where they are worth it (`unitp.planner.problem.one_layout`); `any_bound_s` is what none of these is below either (0: not known).

    All are of plans that heed `pins`, the choices that a user fixed, and in which no rank needs more than `memory_limit` bytes.
    `objective`: what was minimised, time or memory; of memory, `peak_bytes` is what the rank needs that needs most,
    `bound_bytes` what no plan can be below, and the gap is theirs. `machine` is the hash of the cost model, `priced_on` what
    of its numbers is not as the defaults are (`unitp.cost.record`).
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
    """`graph` is the hash of the graph that it was made for; other graphs are refused."""

    graph: str
    mesh: Mesh
    parameters: dict[str, Layout]
    states: dict[str, Layout]
    phases: tuple[PhasePlan, ...]
    certificate: Certificate
    model: str = ""

    def phase(self, name: str) -> PhasePlan:
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
    """Names for splits (`tp[0:5 5:9]`), in order of appearance, and layouts written with them: `-,s1` or `-,-|sum:tp`."""

    def __init__(self) -> None:
        self.names: dict[Split, str] = {}

    def split(self, split: Split) -> str:
        return self.names.setdefault(split, f"s{len(self.names) + 1}")

    def layout(self, layout: Layout) -> str:
        dims = ",".join(self.split(s) if s else "-" for s in layout.dims)
        return dims + (f"|{layout.reduction}:{'+'.join(layout.partial)}" if layout.partial else "")


def encode(plan: Plan) -> bytes:
    """The plan as indented JSON."""
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
    """Write the plan. Raises PlanError where that cannot be done, HostError where the disk is full."""
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
        raise PlanError(f"{where} has plan schema {shortened(schema)}, this unitp reads {SCHEMA}{why}", hint=ANEW)
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
    splits = {name: _split(text, mesh, f'{where}: split {name}, "{text}",') for name, text in file.splits.items()}

    def split(name: str) -> Split:
        if name not in splits:
            raise PlanError(f'{where} names split "{cut(name)}", which its table does not have')
        return splits[name]

    def layout(text: str) -> Layout:
        dims, _, partial = text.partition("|")
        reduction, _, axes = partial.partition(":")
        names = tuple(d for d in dims.split(",") if d)
        found = tuple(None if d == "-" else split(d) for d in names)
        sums = tuple(filter(None, axes.split("+")))
        used = [*(axis for s in found if s for axis in s.axes), *sums]
        if reduction not in ("", "sum", "max") or len(set(used)) < len(used) or set(sums) - set(mesh.sizes):
            raise PlanError(f'{where}: "{cut(text)}" is not a layout on the mesh {mesh}')
        how: Reduction = "max" if reduction == "max" else "sum"
        return Layout(found, sums, how)

    phases = tuple(
        PhasePlan(
            _phase(p, where),
            {node: {f: split(s) for f, s in factors.items()} for node, factors in p.nodes.items()},
            {value: layout(at) for value, at in p.values.items()},
            p.seconds,
        )
        for p in file.phases
    )
    if len({p.phase.name for p in phases}) < len(phases) or not phases:
        raise PlanError(f"{where} has no phases, or two of one name")
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
    """A split from `tp[0:5 5:9]` or `dp[even]`. Raises PlanError where it is none, or none on this mesh."""
    match = re.fullmatch(r"([^\[\]]+)\[(even|\d{1,15}:\d{1,15}(?: \d{1,15}:\d{1,15})*)\]", text)
    if match is None:
        raise PlanError(f"{what} is no split; one is written AXIS[START:STOP ...]")
    axes, inside = tuple(match[1].split("*")), match[2]
    pairs = [part.split(":") for part in inside.split()] if inside != "even" else []
    split = Split(axes, tuple((int(a), int(b)) for a, b in pairs))
    if set(axes) - set(mesh.sizes):
        raise PlanError(f"{what} names an axis that is not on the mesh {mesh}")
    rows = max((stop for _, stop in split.intervals), default=0)
    if pairs and (problems := Layout((split,)).problems((rows,), mesh)):
        raise PlanError(f"{what} is wrong on the mesh {mesh}: {'; '.join(problems)}")
    return split


def require(plan: Plan, graph: Graph) -> None:
    """Raise PlanError where `plan` is not a plan for `graph`: made for another, or damaged. All problems at once."""
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
            yield f"{name} has {dims} dims, its layout {len(layout.dims)}"
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
    yield from (f'it does not lay out {what} "{name}"' for name in known if name not in planned)
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
    """What is wrong with a split of so many rows (a symbol: of any number)."""
    if isinstance(size, int) and not split.open and (stop := max(b for _, b in split.intervals)) != size:
        yield f"{split} splits {stop} rows, there are {size}"


def unsplit(graph: Graph, phases: Sequence[Phase]) -> Plan:
    """The plan for one rank: nothing is split."""
    return Plan(
        graph=graph.hash,
        mesh=Mesh(),
        parameters={p.name: Layout.replicated(len(p.type.shape)) for p in graph.parameters},
        states={s.input: Layout.replicated(len(s.type.shape)) for s in graph.states},
        phases=tuple(PhasePlan(p) for p in phases),
        certificate=Certificate(0.0, 0.0, 0.0, "one rank", 0.0),
    )
