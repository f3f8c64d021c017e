"""Plan files as a stranger writes them.

A plan that is changed without harm has to be read as the same plan. One that is taken for its graph has to be one that can be
lowered, checked, described and priced.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from mutations import NUMBERS, changed, damaged, dump, name, odd, places

import unitp
from unitp import plan_file, plans
from unitp.certificate import CertifiedPlan
from unitp.explain.description import describe
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.program.check import check
from unitp.program.lower import lower
from unitp.program.memory import peak
from unitp.testing.models import EAGER_TO_SPLIT, TINY, tiny

NAME = "plans"


@dataclass(frozen=True)
class Input:
    """`right`: of which mesh it is a plan changed without harm."""

    data: bytes
    path: Path
    right: str = ""

    @property
    def harmless(self) -> bool:
        return bool(self.right)


MESHES = ("tp=2", "tp=3", "dp=2,tp=2", "tp=1")
CROWDED = 1 << 20
"""Bytes from which on a plan is read once alone: how long that takes is what is tried, and not how long twice takes."""


@cache
def graph() -> Graph:
    return tiny(TINY).graph


@cache
def original(mesh: str) -> tuple[CertifiedPlan, Any]:
    """A plan of a small model, and the values of its file. How long planning took is left out: a file would differ each time."""
    made = unitp.plan(tiny(TINY), Mesh.parse(mesh), machine=EAGER_TO_SPLIT)
    made = replace(made, certificate=replace(made.certificate, elapsed_s=0.25))
    return made, json.loads(plan_file.encode(made))


def one(rng: random.Random, folder: Path) -> Input:
    mesh, path = rng.choice(MESHES), folder / "plan.json"
    _, about = original(mesh)
    what = rng.choices(
        ("harmless", "changed", "words", "numbers", "meaning", "many", "bytes"), (15, 20, 20, 15, 15, 3, 12)
    )[0]
    match what:
        case "harmless":
            keys = list(about)
            rng.shuffle(keys)
            text = json.dumps(
                {key: about[key] for key in keys}, indent=rng.choice((None, 1, 8)), ensure_ascii=rng.random() < 0.5
            )
            return Input(f"{text}\n".encode(), path, mesh)
        case "changed":
            about = changed(rng, about)
        case "words":
            about = worded(rng, about)
        case "numbers":
            about = changed(rng, {"x": about}, 1)["x"] if rng.random() < 0.2 else about
            at = (
                [(inner, key) for inner, key in places(about) if type(inner[key]) in (int, float)]
                if isinstance(about, dict)
                else []
            )
            about = json.loads(json.dumps(about)) if at else about
            at = [(inner, key) for inner, key in places(about) if type(inner[key]) in (int, float)]
            for inner, key in rng.sample(at, min(len(at), rng.choice((1, 2, 6)))):
                inner[key] = rng.choice(NUMBERS)
        case "meaning":
            about = exchanged(rng, about)
        case "many":
            about = json.loads(json.dumps(about)) | crowd(rng)
        case "bytes":
            return Input(damaged(rng, json.dumps(about).encode()), path)
    return Input(dump(about).encode(errors="surrogatepass"), path)


def worded(rng: random.Random, value: Any) -> Any:
    """Splits and layouts that are none, or none on this mesh."""
    found = json.loads(json.dumps(value))
    texts = [(inner, key) for inner, key in places(found) if isinstance(inner[key], str)]
    for inner, key in rng.sample(texts, rng.choice((1, 1, 3))):
        inner[key] = rng.choice(
            (
                "tp[0:1 1:2]", "tp[even]", "dp*tp[even]", "tp*tp[even]", "tp[9:3 3:9]", "tp[0:999999999999999]", "tp[]", "[even]",
                f"tp[{' '.join(f'{i}:{i + 1}' for i in range(4000))}]", "x[even]", "-", "-,-", "s1", "s1,s1", "-,s99", "-,-|sum:tp",
                "-,-|max:tp",
                "-|min:tp", "-,-|sum:tp+tp", "|", "-," * 2000, "tp[\u0660:\u0661]", f"{inner[key]} ", inner[key][:-1],
                inner[key] * 2, name(rng),
                odd(rng),
            )
        )  # fmt: skip
    return found


def exchanged(rng: random.Random, value: Any) -> Any:
    """A plan in which layouts, splits or sizes have changed places: well formed, with another meaning, or with none."""
    found = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 5))):
        table = rng.choice(
            (
                found["parameters"],
                found["states"],
                found["splits"],
                *(p[t] for p in found["phases"] for t in ("nodes", "values", "sizes")),
            )
        )
        if len(table) > 1:
            a, b = rng.sample(list(table), 2)
            table[a], table[b] = table[b], table[a]
            if rng.random() < 0.2:
                table[a] = table.pop(b)
    if rng.random() < 0.3:
        found["mesh"] = rng.choice(
            (
                {"tp": 2},
                {"tp": 3},
                {"dp": 2, "tp": 2},
                {"tp": 10**6},
                {},
                {"a=1,tp": 2},
                {"tp": True},
                {"x" * 5000: 2},
                {str(i): 1 for i in range(9000)},
            )
        )
    if rng.random() < 0.2:
        found["model"] = name(rng)
    if rng.random() < 0.2:
        found["graph"] = rng.choice(("", "0" * 16, name(rng)))
    return found


def crowd(rng: random.Random) -> dict[str, Any]:
    """So many entries of one kind that reading them could take long."""
    count = rng.choice((1000, 30_000, 200_000))
    return rng.choice(
        (
            {"splits": {f"s{i}": "tp[0:1 1:2]" for i in range(count)}},
            {"parameters": {f"p{i}": "-,-" for i in range(count)}},
            {"states": {"x": "-," * count}},
            {
                "phases": [
                    {"name": str(i), "sizes": {}, "weight": 1, "seconds": 1, "nodes": {}, "values": {}}
                    for i in range(count // 10)
                ]
            },
            {
                "phases": [
                    {
                        "name": "x",
                        "sizes": {},
                        "weight": 1,
                        "seconds": 1,
                        "nodes": {str(i): {} for i in range(count)},
                        "values": {},
                    }
                ]
            },
            {"certificate": {str(i): i for i in range(count)}},
            {f"x{i}": i for i in range(count)},
        )
    )


def feed(given: Input) -> bool:
    """Read the plan; if it is one for the model, do with it what `show` and `program` do. Raises UnitpError where it is refused."""
    given.path.write_bytes(given.data)
    plan = plan_file.load(given.path)
    if given.right:
        assert plan == original(given.right)[0]
    if len(given.data) < CROWDED:
        plan_file.decode(plan_file.encode(plan))
    plans.require(plan, graph())
    description = describe(plan, graph())
    assert description is not None
    for phase in plan.phases:
        program = lower(graph(), plan, phase.phase.name)
        check(program, graph())
        assert all(peak(program, rank).peak > 0 for rank in range(plan.mesh.size))
    return bool(given.right)
