"""The file of a plan and its certificate: small, stable JSON with a table of the splits that the plan uses.

`decode` judges all that can be judged without the graph; `unitp.plans.require` judges the rest. A file of another schema is refused
with the reason: numbers that meant something else are not read as if they meant the same.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import version
from pathlib import Path

import msgspec

from unitp.certificate import Certificate, CertifiedPlan
from unitp.errors import MeshError, PlanError
from unitp.files import parse_json, read_bytes
from unitp.host import writing
from unitp.layout import Layout, Split, parse_layout, parse_split
from unitp.mesh import Mesh
from unitp.plans import ANEW, Phase, PhasePlan, phase_problem
from unitp.texts import cut, shortened

SCHEMA = 2
OLDER = {1: "in its objective, bound and gap, every byte held had a price"}
"""By older schema, why its plans are refused."""
MOST_BYTES = 8 << 20
"""The most bytes of a plan file. The plan of Llama 3.1 405B on 64 ranks has 600 kB."""


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
    """Names the splits of a plan (`tp[0:5 5:9]`) in order of appearance, and writes layouts with them: `-,s1` or `-,-|sum:tp`."""

    def __init__(self) -> None:
        self.names: dict[Split, str] = {}

    def split(self, split: Split) -> str:
        return self.names.setdefault(split, f"s{len(self.names) + 1}")

    def layout(self, layout: Layout) -> str:
        return layout.text(self.split)


def encode(plan: CertifiedPlan) -> bytes:
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


def save(plan: CertifiedPlan, path: str | os.PathLike[str]) -> None:
    """Write a plan to a file. Raises PlanError if it cannot be written, and HostError if the disk is full."""
    with writing(path, "the plan", PlanError):
        Path(path).write_bytes(encode(plan))


def load(path: str | os.PathLike[str]) -> CertifiedPlan:
    """Read a plan. Raises PlanError for a missing, truncated or foreign file, or another schema."""
    return decode(read_bytes(path, PlanError, most=MOST_BYTES, what="the plan "), str(path))


def decode(data: bytes, where: str = "plan") -> CertifiedPlan:
    """Return the plan in a file's bytes. What needs no graph is checked: splits have no gap and fit the mesh.

    Raises PlanError, which names `where`, for anything but a sound plan of the schema that this unitp reads.
    """
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


def _restore(file: _File, where: str) -> CertifiedPlan:
    try:
        mesh = Mesh(**file.mesh)
    except MeshError as error:
        raise PlanError(f"{where}: {error.message}") from None
    splits = {name: _split(text, mesh, f"{where}: split {name},") for name, text in file.splits.items()}

    def split(name: str) -> Split:
        if name not in splits:
            raise PlanError(f'it names split "{cut(name)}", which its table does not have')
        return splits[name]

    @cache  # a plan has few layouts and many values
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
    return CertifiedPlan(
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
