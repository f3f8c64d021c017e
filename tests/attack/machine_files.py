"""Machine files as a stranger writes them.

One that is changed without harm has to give the same machine. One that is taken has to be written and read back, and plans priced on
it have to have a price.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mutations import NUMBERS, damaged, name

import unitp
from unitp.cost.machine_file import load_machine, parse_machine
from unitp.cost.machine_profiles import PROFILES
from unitp.cost.machine_text import machine_text
from unitp.errors import MeshError, PlanError
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.testing.models import tiny
from unitp.texts import toml_key, toml_text

NAME = "machines"


@dataclass(frozen=True)
class Input:
    """`right`: the text of the machine that it is a change of, without harm."""

    data: bytes
    path: Path
    right: str = ""

    @property
    def harmless(self) -> bool:
        return bool(self.right)


@cache
def texts() -> tuple[str, ...]:
    """Files as they should be: the profiles, and two that use every entry."""
    profiles = [path.read_text() for path in sorted(PROFILES.glob("*.toml"))]
    return (*profiles, WHOLE, UNLIKE)


WHOLE = """
name = "a host"
[devices.cpu]
flops_per_s = { float32 = 1e11, float64 = 5e10 }
memory_bytes_per_s = 2e10
memory = "8GiB"
operator_s = 5e-6
program_s = 3e-4
[devices.cpu.matmul]
float32 = [[1, 1e10], [256, 1e11]]
[devices.cpu.operators]
Swish = { operator_s = 1.5e-5, flops_per_s = 1e10 }
Reshape = { operator_s = 2e-6 }
[devices.cpu.busy.2]
flops_per_s = { float32 = 8e10 }
memory_bytes_per_s = 1e10
operator_s = 6e-6
[link]
latency_s = 5e-6
bytes_per_s = 2e9
call_s = 30e-6
all_reduce = [{ up_to = "64KiB", latency_s = 1e-5, bytes_per_s = 1e9, call_s = 1e-4 }, { latency_s = 2e-5, bytes_per_s = 2e9, call_s = 0 }]
all_gather = { latency_s = 4e-5, bytes_per_s = 4e9, call_s = 0 }
"""
UNLIKE = """
name = "two unlike boxes"
ranks = ["fast", "slow"]
ranks_per_node = 1
[devices.fast]
flops_per_s = { float32 = 19.5e12 }
memory_bytes_per_s = 2e12
memory = "80GB"
operator_s = 5e-6
[devices.slow]
flops_per_s = { float32 = 1e12 }
memory_bytes_per_s = 2e11
operator_s = 5e-6
[link]
latency_s = 5e-6
bytes_per_s = 2e9
call_s = 30e-6
[network]
latency_s = 5e-5
bytes_per_s = 2e8
call_s = 30e-6
[axes.tp]
latency_s = 5e-6
bytes_per_s = 1e9
call_s = 30e-6
[[pairs]]
ranks = [0, 1]
latency_s = 5e-6
bytes_per_s = 2e9
call_s = 30e-6
"""


@cache
def graph() -> Graph:
    return tiny(layers=1).graph


def one(rng: random.Random, folder: Path) -> Input:
    path, text = folder / "machine.toml", rng.choice(texts())
    what = rng.choices(("harmless", "values", "keys", "numbers", "many", "bytes"), (15, 30, 15, 22, 6, 12))[0]
    lines = text.splitlines()
    at = [i for i, line in enumerate(lines) if "=" in line and not line.startswith("#")]
    match what:
        case "harmless":
            return Input(harmless(rng, lines).encode(), path, text)
        case "values":
            for i in rng.sample(at, rng.choice((1, 1, 2, 4))):
                lines[i] = f"{lines[i].split('=')[0]}= {value(rng)}"
        case "keys":
            for _ in range(rng.choice((1, 1, 3))):
                i = rng.randrange(len(lines))
                lines[i] = rng.choice(
                    (
                        f"{key(rng)} = {value(rng)}",
                        f"[{key(rng)}]",
                        f"[devices.{key(rng)}]",
                        f"[[pairs]]\n{lines[i]}",
                        f"[axes.{key(rng)}]",
                        lines[i] * 2,
                        "",
                    )
                )
        case "numbers":
            for i in rng.sample(at, rng.choice((1, 2, 5))):
                words = lines[i].replace(",", " , ").replace("]", " ] ").replace("[", " [ ").split()
                of = [k for k, w in enumerate(words) if w[0].isdigit()]
                if of:
                    words[rng.choice(of)] = number(rng)
                lines[i] = " ".join(words)
        case "many":
            lines += crowd(rng)
        case "bytes":
            return Input(damaged(rng, text.encode()), path)
    return Input("\n".join(lines).encode(errors="surrogatepass"), path)


def harmless(rng: random.Random, lines: list[str]) -> str:
    """Comments, spaces, and lines that end otherwise."""
    ends = rng.choice(("\n", "\r\n"))
    spaced = [
        f"{' ' * rng.randrange(3)}{line}{rng.choice(('', '  ', '   # ' + toml_text(name(rng))))}" for line in lines
    ]
    return ends.join(["# a machine", *spaced, ""])


def number(rng: random.Random) -> str:
    words = (
        "nan",
        "inf",
        "-inf",
        "1e999",
        "9" * 5000,
        "0xffffffffffffffffff",
        "1_000",
        "-1",
        "0",
        "-0.0",
        "1e-400",
        "5e-324",
        "1e308",
    )
    return rng.choice((*words, repr(rng.choice([n for n in NUMBERS if not isinstance(n, int) or abs(n) < 10**40]))))


def key(rng: random.Random) -> str:
    return rng.choice(
        (
            toml_key(name(rng)),
            "a." * 9000 + "a",
            "cpu",
            "devices",
            '"".""',
            "x" * 9000,
            "link",
            "network",
            "busy.2",
            "cpu.busy.99999999999999999999",
        )
    )


def value(rng: random.Random) -> str:
    return rng.choice(
        (
            number(rng), number(rng), toml_text(name(rng)), "true", "[]", "{}", "[[]]", "[" * 3000, "[" * 70 + "]" * 70, "{a=" * 3000,
            '"8GiB"', '"9999999999999999999TB"', '"-1GB"', '"1e5"', "1979-05-27", "[1, 2]", "[[1, 1], [1, 1]]", "[[0, 1e10]]", "[[1, nan]]",
            "{ float32 = 0 }", "{ float32 = inf }", "{ float32 = 1e-320 }", "{ operator_s = -1 }", '["fast"]', '["fast", "fast"]',
            '["none"]',
            f"[{', '.join(['1'] * 9000)}]", "'x", "",
        )
    )  # fmt: skip


def crowd(rng: random.Random) -> list[str]:
    """So many entries of one kind that reading them could take long."""
    count = rng.choice((100, 3000, 60_000))
    return rng.choice(
        (
            [f"[devices.d{i}]" for i in range(count)],
            ["[devices.cpu.operators]", *(f"Swisch{i} = {{}}" for i in range(count))],
            ["[x]", *(f"latency{i} = 1" for i in range(count))],
            [f"latenci{i} = 1" for i in range(count)],
            ["[[pairs]]\nranks = [0, 1]"] * count,
            [
                f"[[pairs]]\nranks = [{i}, {i + 1}]\nlatency_s = 1\nbytes_per_s = 1\ncall_s = 1"
                for i in range(count // 10)
            ],
            ["[q]", f"ranks = [{', '.join(['1'] * count)}]"],
            [f"[axes.a{i}]" for i in range(count)],
            [f"[devices.cpu.busy.{i}]" for i in range(count)],
        )
    )


def feed(given: Input) -> bool:
    """Read the machine, write it, read that, and plan for it. Raises UnitpError where it is refused."""
    given.path.write_bytes(given.data)
    machine = load_machine(given.path)
    if given.right:
        assert machine == parse_machine(given.right, name=machine.name)
    assert len(machine.hash) == 12
    again = parse_machine(machine_text(machine, digits=17), name=machine.name)
    assert again == machine, (again, machine)
    for mesh in (Mesh(tp=2), Mesh()):
        try:
            made = unitp.plan(graph(), mesh, machine=machine, allow_unused=True)
        except (MeshError, PlanError):  # it is for other meshes, or has too little memory
            continue
        seconds = [made.certificate.objective_s, made.certificate.lower_bound_s, *(p.seconds for p in made.phases)]
        assert all(math.isfinite(s) and s >= 0 for s in seconds), seconds
    return bool(given.right)
