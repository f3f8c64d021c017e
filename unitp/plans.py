"""The plan: who holds what, phase by phase, and what it should cost. A small, stable JSON file.

Parameters, states and nodes that depend on parameters alone are laid out once; activations per phase. A node's entry is the
split of its factors (nodes that are not split are not listed); `values` holds the layouts of inputs and of values that
several nodes read. Splits of the batch are open: they are bound to the size at hand when a program is lowered.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from unitp.errors import PlanError
from unitp.graph.graph import Graph
from unitp.layout import Layout, Reduction, Split
from unitp.mesh import Mesh

SCHEMA = 1


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


class Certificate(msgspec.Struct, frozen=True):
    """How good the plan is: objective and lower bound in seconds, their relative gap, what found it and how long that took."""

    objective_s: float
    lower_bound_s: float
    gap: float
    solver: str
    elapsed_s: float
    machine: str = ""


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
    splits: dict[str, Split]
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
    """Names for splits, in order of appearance, and layouts written with them: `-,s1` or `-,-|sum:tp`."""

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
    splits = {name: split for split, name in table.names.items()}
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
    Path(path).write_bytes(encode(plan))


def load(path: str | os.PathLike[str]) -> Plan:
    """Read a plan. Raises PlanError for a missing, truncated or foreign file, or another schema."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}") from None
    return decode(data, str(path))


def decode(data: bytes, where: str = "plan") -> Plan:
    try:
        head: Any = msgspec.json.decode(data)
        schema = head.get("schema") if isinstance(head, dict) else None
        if schema != SCHEMA:
            hint = "Make it anew with `unitp plan`."
            raise PlanError(f"{where} has plan schema {schema}, this unitp reads {SCHEMA}", hint=hint)
        return _restore(msgspec.convert(head, _File), where)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise PlanError(f"{where} is not a plan: {error}", hint="Make it anew with `unitp plan`.") from None


def _restore(file: _File, where: str) -> Plan:
    mesh = Mesh(**file.mesh)

    def split(name: str) -> Split:
        if name not in file.splits:
            raise PlanError(f'{where} names split "{name}", which its table does not have')
        return file.splits[name]

    def layout(text: str) -> Layout:
        dims, _, partial = text.partition("|")
        reduction, _, axes = partial.partition(":")
        if reduction not in ("", "sum", "max"):
            raise PlanError(f'{where}: "{text}" is not a layout')
        how: Reduction = "max" if reduction == "max" else "sum"
        names = tuple(d for d in dims.split(",") if d)
        return Layout(tuple(None if d == "-" else split(d) for d in names), tuple(filter(None, axes.split("+"))), how)

    phases = tuple(
        PhasePlan(
            Phase(p.name, p.sizes, p.weight),
            {node: {f: split(s) for f, s in splits.items()} for node, splits in p.nodes.items()},
            {value: layout(at) for value, at in p.values.items()},
            p.seconds,
        )
        for p in file.phases
    )
    return Plan(
        graph=file.graph,
        mesh=mesh,
        parameters={name: layout(at) for name, at in file.parameters.items()},
        states={name: layout(at) for name, at in file.states.items()},
        phases=phases,
        certificate=file.certificate,
        model=file.model,
    )


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
