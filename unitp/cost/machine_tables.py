"""What a machine file may say: its tables and entries, with the types and bounds of their values.

    name = "two different boxes"
    ranks = ["fast", "slow"]              the class of each rank; may be left out if there is one class

    [devices.fast]
    flops_per_s = { float32 = 19.5e12 }   by dtype; those that are not listed count as float32
    memory_bytes_per_s = 2e12
    memory = "80GB"                       may be left out: then the memory has no limit
    operator_s = 5e-6

    [devices.fast.matmul]                 FLOP/s of contractions by rows, if they were measured
    float32 = [[1, 9e9], [16, 4e10], [256, 6e10]]
    [devices.fast.operators]              what differs for an operator; the table and each number may be left out
    Softmax = { operator_s = 9e-6, flops_per_s = 1e9, bytes_per_s = 4e9 }
    [devices.fast.busy.2]                 the same device while 2 ranks of its host work: all of the above but memory

    [link]                                between two ranks, unless a table below says otherwise
    latency_s = 5e-6
    bytes_per_s = 2e9                     one way
    call_s = 30e-6
    all_reduce = [{ up_to = "64KiB", latency_s = ..., bytes_per_s = ..., call_s = ... }, { latency_s = ..., ... }]
                                          what differs for a kind of collective, by the size of the whole array

    [network]                             between ranks of different nodes; a node has `ranks_per_node` consecutive ranks
    [axes.tp]                             between ranks along an axis of the mesh
    [[pairs]]                             between two ranks: ranks = [0, 1], and the same three numbers

Every fault of a file is found before any is reported (`unitp.tables`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Annotated, Any, ClassVar

from msgspec import Meta, field

from unitp.cost.bytes import WANTED, parse_bytes
from unitp.cost.link import KINDS
from unitp.errors import GraphError, InputError, did_you_mean
from unitp.graph.ops import is_contraction, operator
from unitp.mesh import MOST_RANKS
from unitp.tables import Fault, Must, Table, but
from unitp.texts import cut, toml_key

LEAST, MOST = 1e-30, 1e30
"""Numbers of a machine are 0 or between these, so that their sums and products stay finite and positive."""
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int8", "bool")


class Size(float):
    """A number of bytes from a text such as "8GiB" or from a number. Raises InputError for anything else."""

    def __new__(cls, value: object) -> Size:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(f"a size must be {WANTED}")
        return super().__new__(cls, parse_bytes(value if isinstance(value, str) else f"{value:.0f}"))


def _within(value: float) -> str:
    return "" if LEAST <= value <= MOST else but(f"a number from {LEAST:g} to {MOST:g}", value)


def _zero_or_within(value: float) -> str:
    return "" if value == 0 or LEAST <= value <= MOST else but(f"0 or a number from {LEAST:g} to {MOST:g}", value)


def _ascending(points: tuple[tuple[float, float], ...]) -> str:
    if any(map(_within, chain.from_iterable(points))):
        return but(f"points of numbers from {LEAST:g} to {MOST:g}", [list(point) for point in points])
    return _in_order("rows", [rows for rows, _ in points])


def _in_order(what: str, numbers: Sequence[float]) -> str:
    ascend = all(a < b for a, b in pairwise(numbers))
    return "" if ascend else f"has {what} {cut(', '.join(f'{n:g}' for n in numbers))}, which must ascend"


def _known_operator(name: str) -> str:
    try:
        operator(name)
    except GraphError as error:
        return f"is not an operator. {error.hint}"
    return ""


def _known_dtype(name: str) -> str:
    return "" if name in DTYPES else f"is not a dtype of a machine. {did_you_mean(name, DTYPES)}"


def _ranks_of_a_host(text: str) -> str:
    known = re.fullmatch("[0-9]{1,9}", text) and 1 < int(text) <= MOST_RANKS
    return "" if known else f"is not a number of ranks from 2 to {MOST_RANKS}"


def _different(ranks: tuple[int, int]) -> str:
    return but(TWO_RANKS, list(ranks)) if ranks[0] == ranks[1] else ""


def _not_empty(found: Any) -> str:
    return "" if found else but(STRETCHES, found)


TWO_RANKS = "two different ranks, as in [0, 1]"
STRETCHES = "a table, or a list of tables whose up_to ascends"
Seconds = Annotated[float, Meta(ge=0), Must("a number of seconds that is not negative", _zero_or_within)]
BytesPerSecond = Annotated[float, Meta(gt=0), Must("a positive number of bytes per second", _within)]
FlopsPerSecond = Annotated[float, Meta(gt=0), Must("a positive number of FLOPs per second", _within)]
Bytes = Annotated[Size, Must(WANTED)]
Rank = Annotated[int, Meta(ge=0, lt=MOST_RANKS)]
Dtype = Annotated[str, Must("a dtype", _known_dtype)]
Operator = Annotated[str, Must("an operator", _known_operator)]
RanksOfAHost = Annotated[str, Must("a number of ranks", _ranks_of_a_host)]
Positive = Annotated[float, Meta(gt=0)]
Points = Annotated[
    tuple[tuple[Positive, Positive], ...],
    Meta(min_length=1),
    Must("a list of points [rows, FLOP/s], all positive", _ascending),
]
Speeds = Annotated[dict[Dtype, FlopsPerSecond], Must("a table of FLOP/s by dtype, as in { float32 = 19.5e12 }")]


class StretchTable(Table, frozen=True, kw_only=True):
    """The numbers of a kind of collective, for arrays of at most `up_to` bytes."""

    latency_s: Seconds
    bytes_per_s: BytesPerSecond
    call_s: Seconds
    up_to: Bytes | None = None


Stretches = Annotated[StretchTable | list[StretchTable], Must(STRETCHES, _not_empty)]


class LinkTable(Table, frozen=True, kw_only=True):
    """A link between two ranks, and what differs for a kind of collective."""

    latency_s: Seconds
    bytes_per_s: BytesPerSecond
    call_s: Seconds
    all_reduce: Stretches | None = None
    all_gather: Stretches | None = None
    reduce_scatter: Stretches | None = None
    all_to_all: Stretches | None = None

    @classmethod
    def faults(cls, given: Mapping[str, Any], sound: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield what is wrong with the sizes of stretches: all but the last have one, and they ascend."""
        for kind in filter(sound.__contains__, KINDS):
            single = isinstance(sound[kind], dict)
            tables, known = ([given[kind]], [sound[kind]]) if single else (given[kind], sound[kind])
            for number, table in enumerate(tables):
                place, last = f"{kind}.up_to" if single else f"{kind}[{number}].up_to", number == len(tables) - 1
                if isinstance(table, dict) and last == ("up_to" in table):
                    yield place, "must be left out of the last table" if last else f"is missing; it must be {WANTED}"
            sizes = [table["up_to"] for table in known[:-1] if table and "up_to" in table]
            if says := _in_order("sizes up_to", sizes):
                yield kind, says


class PairTable(LinkTable, frozen=True, kw_only=True):
    """The link between two ranks."""

    ranks: Annotated[tuple[Rank, Rank], Must(TWO_RANKS, _different)]


class RateTable(Table, frozen=True, kw_only=True):
    """What differs for an operator."""

    operator_s: Seconds | None = None
    flops_per_s: FlopsPerSecond | None = None
    bytes_per_s: BytesPerSecond | None = None


class BusyTable(Table, frozen=True, kw_only=True):
    """A device while several ranks of its host work."""

    flops_per_s: Speeds
    memory_bytes_per_s: BytesPerSecond
    operator_s: Seconds
    program_s: Seconds = 0.0
    matmul: dict[Dtype, Points] = field(default_factory=dict)
    operators: dict[Operator, RateTable] = field(default_factory=dict)

    @classmethod
    def faults(cls, given: Mapping[str, Any], sound: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield speeds without one of float32, and speeds of operators whose speed is in `matmul`."""
        if "flops_per_s" in sound and "float32" not in given["flops_per_s"]:
            yield "flops_per_s.float32", "is missing; it must be a positive number of FLOPs per second"
        if sound.get("matmul") and "float32" not in given["matmul"]:
            yield "matmul.float32", "is missing; it must be a list of points [rows, FLOP/s], all positive"
        for name, rate in sound.get("operators", {}).items():
            for entry in ("flops_per_s", "bytes_per_s") if is_contraction(name) else ():
                if entry in (rate or {}):
                    yield f"operators.{name}.{entry}", f"is not read: the table matmul has the speed of {name}"


class DeviceTable(BusyTable, frozen=True, kw_only=True):
    """A class of devices."""

    memory: Bytes | None = None
    busy: dict[RanksOfAHost, BusyTable] = field(default_factory=dict)


class MachineTable(Table, frozen=True, kw_only=True):
    """A machine file."""

    retired: ClassVar[Mapping[str, str]] = {
        "held_byte_s": "is not read any more, because held bytes have no price: of the plans within 0.1 % of the fastest, "
        "the one that holds fewest bytes is taken. Delete this entry."
    }

    devices: Annotated[dict[str, DeviceTable], Must("at least one table [devices.NAME]")]
    link: LinkTable
    name: str | None = None
    ranks: Annotated[
        tuple[str, ...],
        Meta(max_length=MOST_RANKS),
        Must(f'a list of at most {MOST_RANKS} device classes, as in ["fast", "slow"]'),
    ] = ()
    ranks_per_node: Annotated[int, Meta(ge=1, le=MOST_RANKS), Must(f"a whole number from 1 to {MOST_RANKS}")] | None = (
        None
    )
    network: LinkTable | None = None
    axes: dict[str, LinkTable] = field(default_factory=dict)
    pairs: list[PairTable] = field(default_factory=list)

    @classmethod
    def faults(cls, given: Mapping[str, Any], sound: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield what is wrong between devices, ranks and links."""
        devices, ranks = list(sound.get("devices", {})), sound.get("ranks", ())
        if "devices" in sound and not devices:
            yield "devices", "must have at least one table [devices.NAME]"
        if len(devices) > 1 and not given.get("ranks"):
            yield "ranks", "is missing; there are several devices, so it must list the class of each rank"
        for number, name in enumerate(ranks):
            if name not in devices:
                yield f"ranks[{number}]", but(f"one of {', '.join(devices) or 'the devices'}", name)
        if ranks:
            yield from (
                (f"devices.{toml_key(name)}", "is the class of no rank") for name in devices if name not in ranks
            )
        if ("network" in given) != ("ranks_per_node" in given):
            there, missing = ("network", "ranks_per_node") if "network" in given else ("ranks_per_node", "network")
            yield missing, f"is missing; a file that has {there} must have it too"
        yield from cls._faults_of_pairs(sound.get("pairs", []), len(ranks))

    @staticmethod
    def _faults_of_pairs(pairs: list[Any], ranks: int) -> Iterator[Fault]:
        seen: set[frozenset[int]] = set()
        for number, pair in enumerate(pairs):
            if (two := (pair or {}).get("ranks")) is None:
                continue
            if ranks and max(two) >= ranks:
                yield f"pairs[{number}].ranks", but(f"below {ranks}, because ranks lists {ranks}", list(two))
            if frozenset(two) in seen:
                yield f"pairs[{number}].ranks", f"names ranks {two[0]} and {two[1]}, which an earlier pair has"
            seen.add(frozenset(two))
