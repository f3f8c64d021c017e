"""Machines from TOML files, and the built-in profiles, which are such files too.

    name = "two unlike boxes"
    ranks = ["fast", "slow"]              the class of each rank; may be left out where there is one class

    [devices.fast]
    flops_per_s = { float32 = 19.5e12 }   by dtype; those not listed count as float32
    memory_bytes_per_s = 2e12
    memory = "80GB"                       may be left out: then it has no limit
    operator_s = 5e-6

    [devices.fast.matmul]                 FLOP/s of contractions by rows, where it was measured
    float32 = [[1, 9e9], [16, 4e10], [256, 6e10]]
    [devices.fast.operators]              what differs for an operator; may be left out, and so may each number
    Softmax = { operator_s = 9e-6, flops_per_s = 1e9, bytes_per_s = 4e9 }
    [devices.fast.busy.2]                 the same device while 2 ranks of its host work: all that stands above but memory

    [link]                                between two ranks, where nothing below says otherwise
    latency_s = 5e-6
    bytes_per_s = 2e9                     one way
    call_s = 30e-6
    all_reduce = [{ up_to = "64KiB", latency_s = ..., bytes_per_s = ..., call_s = ... }, { latency_s = ..., ... }]
                                          what differs for a kind of collective, by the size of the whole array

    [network]                             between ranks of different nodes; a node has `ranks_per_node` consecutive ranks
    [axes.tp]                             between ranks along an axis of the mesh
    [[pairs]]                             between two ranks: ranks = [0, 1], and the same three numbers

Every mistake in a file is found before any is reported, each with its place in the file, what was seen and what is wanted.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

from unitp.cost.bytes import WANTED, parse_bytes
from unitp.cost.device import Device, Points, Rate
from unitp.cost.link import KINDS, Link, Stretch
from unitp.cost.machine import Machine, Pair
from unitp.cost.machine_profiles import MACHINES
from unitp.errors import GraphError, InputError, did_you_mean
from unitp.files import parse_toml, read_text
from unitp.graph.ops import is_contraction, operator
from unitp.mesh import MOST_RANKS
from unitp.texts import cut

MOST_BYTES = 1 << 20
"""Of a machine file, which `tomllib` reads at a megabyte a second. A measured host takes 10 kB, the pairs of 64 ranks 200."""
MOST_PROBLEMS = 50
"""So many mistakes of a file are told at once."""
LINK = ("latency_s", "bytes_per_s", "call_s")
DEVICE = ("flops_per_s", "memory_bytes_per_s", "operator_s", "program_s", "matmul", "operators")
RATE = ("operator_s", "flops_per_s", "bytes_per_s")
TOP = ("name", "ranks", "ranks_per_node", "devices", "link", "network", "axes", "pairs")
GONE = {
    "held_byte_s": "bytes held have no price any more: of plans within 0.1 % in time, the one that holds least is taken. "
    "Delete this entry"
}
"""Entries that older files have, and why they are not read."""
FLOATS = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int8", "bool")
Table = Mapping[str, Any]


def profiles() -> list[str]:
    """The names of the profiles, those of plug-ins included."""
    return sorted(MACHINES.all())


def load_machine(name: str | os.PathLike[str]) -> Machine:
    """A machine by the name of a profile, or from a file. Raises InputError with all that is wrong."""
    text = os.fspath(name)
    path = Path(text)
    if text in MACHINES.built_in or not os.path.lexists(path):
        path = MACHINES.find(text) or path
    if not os.path.lexists(path):
        raise InputError(
            f'there is no machine "{text}": neither a file nor a profile', hint=did_you_mean(text, profiles())
        )
    return parse_machine(read_text(path, most=MOST_BYTES, what="the machine "), str(path), path.stem)


def parse_machine(text: str, where: str = "machine", name: str = "") -> Machine:
    """A machine from the text of a file. Raises InputError with all that is wrong."""
    file = parse_toml(text, where)
    reader, more = _Reader(), []
    try:
        made = reader.machine(file, name)
    except _EnoughError:
        more = ["  and maybe more"]
    if reader.problems:
        raise InputError(
            "\n".join([f"{where} is not a machine:", *(f"  {problem}" for problem in reader.problems), *more]),
            hint="docs/command-line.md describes machine files.",
        )
    return made


class _EnoughError(Exception):
    """A file has as many mistakes as are told at once."""


class _Reader:
    """Reads tables field by field and collects `problems`; what is wrong is replaced by something harmless."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def problem(self, text: str) -> None:
        self.problems.append(text)
        if len(self.problems) >= MOST_PROBLEMS:
            raise _EnoughError

    def wrong(self, place: str, seen: object, wanted: str) -> None:
        self.problem(f"{place}: {_shown(seen)}, wanted is {wanted}")

    def machine(self, file: Table, name: str) -> Machine:
        for key in filter(file.__contains__, GONE):
            self.problem(f"{key}: {GONE[key]}.")
        self.known({key: value for key, value in file.items() if key not in GONE}, "", TOP)
        devices = {key: self.device(value, f"devices.{key}") for key, value in self.table(file, "devices").items()}
        if not devices:
            self.problem("devices: missing, wanted is at least one table [devices.NAME]")
        ranks = self.ranks(file, devices)
        network = self.link(file["network"], "network") if "network" in file else None
        link = self.link(file.get("link", {}), "link")
        return Machine(
            link_latency_s=link.latency_s,
            link_bytes_per_s=link.bytes_per_s,
            call_s=link.call_s,
            name=self.name(file, name),
            devices=devices,
            ranks=ranks,
            axes={axis: self.link(value, f"axes.{axis}") for axis, value in self.table(file, "axes").items()},
            network=network,
            ranks_per_node=self.node(file, network is not None),
            pairs=tuple(self.pairs(file, len(ranks))),
            link_kinds=link.kinds,
        )

    def known(self, table: Table, place: str, names: tuple[str, ...]) -> None:
        for key in table:
            if key not in names:
                self.problem(f"{place}{key}: there is no such entry. {did_you_mean(key, names)}")

    def table(self, file: Table, key: str) -> Table:
        found = file.get(key, {})
        if not isinstance(found, dict):
            self.wrong(key, found, f"tables [{key}.NAME]")
            return {}
        return found

    def number(self, table: Table, key: str, place: str, *, least: float, default: float | None = None) -> float:
        """A finite number, above 0 or (least = 0) from 0 on."""
        wanted = "a number of at least 0" if least == 0.0 else "a number above 0"
        if type(table.get(key)) in (int, float) and table[key] > 0:
            wanted = f"{'0, or ' if least == 0.0 else ''}a number from {LEAST:g} to {MOST:g}"
        if key not in table:
            if default is None:
                self.problem(f"{place}{key}: missing, wanted is {wanted}")
            return 1.0 if default is None else default
        value = table[key]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not (LEAST <= value <= MOST or value == least)
        ):
            self.wrong(place + key, value, wanted)
            return 1.0
        return float(value)

    def device(self, table: Any, place: str, more: tuple[str, ...] = ("memory", "busy")) -> Device:
        if not isinstance(table, dict):
            self.wrong(place, table, f"a table [{place}]")
            table = {}
        self.known(table, f"{place}.", (*DEVICE, *more))
        flops = table.get("flops_per_s")
        if not isinstance(flops, dict):
            self.wrong(f"{place}.flops_per_s", flops, "numbers by dtype, as in { float32 = 19.5e12 }")
            flops = {"float32": 1.0}
        self.known(flops, f"{place}.flops_per_s.", FLOATS)
        if "float32" not in flops:
            self.problem(f"{place}.flops_per_s.float32: missing, wanted is a number above 0")
        return Device(
            {dtype: self.number(flops, dtype, f"{place}.flops_per_s.", least=LEAST) for dtype in flops}
            or {"float32": 1.0},
            self.number(table, "memory_bytes_per_s", f"{place}.", least=LEAST),
            self.number(table, "operator_s", f"{place}.", least=0.0),
            self.memory(table, f"{place}.memory"),
            self.matmul(self.inner(table, "matmul", place), f"{place}.matmul"),
            self.rates(self.inner(table, "operators", place), f"{place}.operators"),
            self.number(table, "program_s", f"{place}.", least=0.0, default=0.0),
            dict(self.busy(self.inner(table, "busy", place), f"{place}.busy")),
        )

    def inner(self, table: Table, key: str, place: str) -> Table:
        """A table in a device, none where it is left out."""
        found = table.get(key, {})
        if not isinstance(found, dict):
            self.wrong(f"{place}.{key}", found, f"a table [{place}.{key}]")
            return {}
        return found

    def busy(self, table: Table, place: str) -> Iterator[tuple[int, Device]]:
        for key, value in table.items():
            if re.fullmatch("[0-9]{1,9}", key) and 1 < int(key) <= MOST_RANKS:
                yield int(key), self.device(value, f"{place}.{key}", ())
            else:
                self.wrong(f"{place}.{key}", key, f"a number of ranks from 2 to {MOST_RANKS}")

    def matmul(self, table: Table, place: str) -> dict[str, Points]:
        self.known(table, f"{place}.", FLOATS)
        if table and "float32" not in table:
            self.problem(f"{place}.float32: missing, wanted are points {POINTS}")
        return {dtype: self.points(value, f"{place}.{dtype}") for dtype, value in table.items()}

    def points(self, value: Any, place: str) -> Points:
        """Rows and FLOP/s, rows ascending."""
        pairs: list[Any] = value if isinstance(value, list) and value else [None]
        if not all(isinstance(p, list) and len(p) == 2 and all(_is_above_0(n) for n in p) for p in pairs):
            self.wrong(place, value, f"points {POINTS}, all above 0")
            return ((1.0, 1.0),)
        rows = [p[0] for p in pairs]
        if any(b <= a for a, b in itertools.pairwise(rows)):
            self.wrong(place, rows, "rows that ascend")
        return tuple((float(n), float(f)) for n, f in pairs)

    def rates(self, table: Table, place: str) -> dict[str, Rate]:
        return {name: self.rate(name, value, f"{place}.{name}") for name, value in table.items()}

    def rate(self, name: str, table: Any, place: str) -> Rate:
        try:
            operator(name)
        except GraphError as error:
            self.problem(f"{place}: there is no such operator. {error.hint}")
        if not isinstance(table, dict):
            self.wrong(place, table, "a table, as in { operator_s = 9e-6 }")
            return Rate()
        names = RATE[:1] if is_contraction(name) else RATE
        self.known(table, f"{place}.", names)
        least = {"operator_s": 0.0}
        found = {k: self.number(table, k, f"{place}.", least=least.get(k, LEAST)) for k in names if k in table}
        return Rate(**found)

    def memory(self, table: Table, place: str, key: str = "memory") -> float:
        if key not in table:
            return inf
        value = table[key]
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise InputError("")
            return float(parse_bytes(value if isinstance(value, str) else f"{value:.0f}"))
        except (InputError, ValueError):
            self.wrong(place, value, WANTED)
            return inf

    def link(self, table: Any, place: str, more: tuple[str, ...] = ()) -> Link:
        if not isinstance(table, dict):
            self.wrong(place, table, f"a table [{place}]")
            table = {}
        self.known(table, f"{place}.", (*LINK, *KINDS, *more))
        kinds = {kind: self.stretches(table[kind], f"{place}.{kind}") for kind in KINDS if kind in table}
        return Link(*self.three(table, place), kinds)

    def three(self, table: Table, place: str) -> tuple[float, float, float]:
        return (
            self.number(table, "latency_s", f"{place}.", least=0.0),
            self.number(table, "bytes_per_s", f"{place}.", least=LEAST),
            self.number(table, "call_s", f"{place}.", least=0.0),
        )

    def stretches(self, value: Any, place: str) -> tuple[Stretch, ...]:
        """The numbers of a kind of collective: a table, or a list of them by size."""
        tables = [value] if isinstance(value, dict) else value
        if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
            self.wrong(place, value, "a table, or a list of tables with ascending up_to")
            return ()
        found = []
        for number, table in enumerate(tables):
            at = place if tables[0] is value else f"{place}[{number}]"
            last = number == len(tables) - 1
            self.known(table, f"{at}.", (*LINK, "up_to"))
            if last == ("up_to" in table):
                self.problem(f"{at}.up_to: wanted in all tables of the list but the last")
            found.append(Stretch(*self.three(table, at), inf if last else self.memory(table, f"{at}.up_to", "up_to")))
        if any(b.up_to <= a.up_to for a, b in itertools.pairwise(found) if a.up_to < inf):
            self.wrong(place, [t.get("up_to") for t in tables[:-1]], "sizes that ascend")
        return tuple(found)

    def ranks(self, file: Table, devices: Mapping[str, Device]) -> tuple[str, ...]:
        names = file.get("ranks", [])
        if not isinstance(names, list) or len(names) > MOST_RANKS:
            self.wrong("ranks", names, f'a list of at most {MOST_RANKS} device classes, as in ["fast", "slow"]')
            return ()
        for number, name in enumerate(names):
            if not isinstance(name, str) or name not in devices:
                self.wrong(f"ranks[{number}]", name, f"one of {', '.join(devices) or 'the devices'}")
        if len(devices) > 1 and not names:
            self.problem("ranks: missing; with several devices, the class of each rank is wanted")
        if names:
            used = {name for name in names if isinstance(name, str)}
            for name in filter(lambda name: name not in used, devices):
                self.problem(f"devices.{name}: no rank is of this class")
        return tuple(map(str, names))

    def node(self, file: Table, network: bool) -> int:
        size = file.get("ranks_per_node", 0)
        if "ranks_per_node" in file and (
            isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MOST_RANKS
        ):
            self.wrong("ranks_per_node", size, f"a whole number from 1 to {MOST_RANKS}")
            return 1
        if network != ("ranks_per_node" in file):
            there, missing = ("network", "ranks_per_node") if network else ("ranks_per_node", "network")
            self.problem(f"{missing}: missing, wanted where {there} is given")
        return int(size)

    def name(self, file: Table, default: str) -> str:
        found = file.get("name", default)
        if not isinstance(found, str):
            self.wrong("name", found, "a text")
        return str(found)

    def pairs(self, file: Table, count: int) -> Iterator[Pair]:
        found = file.get("pairs", [])
        if not isinstance(found, list):
            self.wrong("pairs", found, "tables [[pairs]]")
            return
        seen: set[frozenset[int]] = set()
        for number, table in enumerate(found):
            place = f"pairs[{number}]"
            link = self.link(table, place, ("ranks",))
            ranks: Any = table.get("ranks") if isinstance(table, dict) else None
            if not _are_two_ranks(ranks):
                self.wrong(f"{place}.ranks", ranks, "two different ranks, as in [0, 1]")
                continue
            if count and max(ranks) >= count:
                self.wrong(f"{place}.ranks", ranks, f"ranks below {count}, since `ranks` lists so many")
            if frozenset(ranks) in seen:
                self.wrong(f"{place}.ranks", ranks, "each pair once")
            seen.add(frozenset(ranks))
            yield Pair((ranks[0], ranks[1]), link)


LEAST, MOST = 1e-30, 1e30
"""Numbers of a machine are 0 or between these: sums and products of them stay numbers."""

POINTS = "[[rows, FLOP/s], ...]"


def _is_above_0(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and LEAST <= value <= MOST


def _are_two_ranks(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(r, int) and not isinstance(r, bool) and 0 <= r < MOST_RANKS for r in value)
        and value[0] != value[1]
    )


def _shown(value: object) -> str:
    return "missing" if value is None else f'"{cut(value)}"' if isinstance(value, str) else cut(str(value))
