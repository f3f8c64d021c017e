"""Whichever entries of a machine file are spoiled, exactly these are told, and the file is read without the faults."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitp.cost.machine_file import parse_machine
from unitp.cost.machine_tables import MachineTable
from unitp.errors import InputError
from unitp.files import parse_toml
from unitp.tables import read

TEXT = """
name = "two boxes"
ranks = ["fast", "slow"]
ranks_per_node = 1
[devices.fast]
flops_per_s = { float32 = 1e11, float64 = 5e10 }
memory_bytes_per_s = 2e10
memory = "8GiB"
operator_s = 5e-6
program_s = 3e-4
[devices.fast.matmul]
float32 = [[1, 1e10], [256, 1e11]]
[devices.fast.operators]
Swish = { operator_s = 1.5e-5, flops_per_s = 1e10 }
Reshape = { operator_s = 2e-6 }
[devices.fast.busy.2]
flops_per_s = { float32 = 8e10 }
memory_bytes_per_s = 1e10
operator_s = 6e-6
[devices.slow]
flops_per_s = { float32 = 1e10 }
memory_bytes_per_s = 2e10
operator_s = 5e-6
[link]
latency_s = 5e-6
bytes_per_s = 2e9
call_s = 30e-6
all_reduce = [{ up_to = "64KiB", latency_s = 1e-5, bytes_per_s = 1e9, call_s = 1e-4 }, { latency_s = 2e-5, bytes_per_s = 2e9, call_s = 0 }]
all_gather = { latency_s = 4e-5, bytes_per_s = 4e9, call_s = 0 }
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
WHOLE = ("ranks", "float32", "float64")
"""Lists that count as one value: the classes of ranks, two ranks, and points."""


def leaves(value: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """The container and key of every value that is not itself a container, by its place."""
    found: dict[str, tuple[Any, Any]] = {}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        at = f"{place}[{key}]" if isinstance(key, int) else f"{place}.{key}".removeprefix(".")
        if isinstance(inner, dict | list) and key not in WHOLE:
            found |= leaves(inner, at)
        else:
            found[at] = (value, key)
    return found


PLACES = sorted(leaves(parse_toml(TEXT, "f.toml")))


def test_the_file_has_no_fault() -> None:
    assert parse_machine(TEXT).ranks == ("fast", "slow")


@given(
    st.sets(st.sampled_from(PLACES), min_size=1, max_size=20), st.sampled_from([True, "", [], {}, [[]], -1, "x" * 99])
)
def test_exactly_the_spoiled_entries_are_told(spoiled: set[str], by: Any) -> None:
    file = parse_toml(TEXT, "f.toml")
    places = leaves(file)
    spoiled = {place for place in spoiled if not (isinstance(by, str) and place == "name")}
    for place in spoiled:
        container, key = places[place]
        container[key] = by
    if not spoiled:
        return
    with pytest.raises(InputError) as caught:
        read(file, MachineTable, "f.toml", "a machine file")
    told = {line.split()[0] for line in caught.value.message.splitlines()[1:]}
    told -= {"ranks"} - spoiled  # which must list the classes of the devices
    assert told == spoiled


@given(st.sets(st.sampled_from(PLACES), min_size=1, max_size=20))
def test_a_misspelt_entry_is_told_and_so_is_what_is_missing_then(spoiled: set[str]) -> None:
    file = parse_toml(TEXT, "f.toml")
    places = leaves(file)
    for place in (keys := {place for place in spoiled if not place.endswith("]")}):
        container, key = places[place]
        container[f"{key}_"] = container.pop(key)
    if not keys:
        return
    with pytest.raises(InputError) as caught:
        read(file, MachineTable, "f.toml", "a machine file")
    told = [line.split()[0] for line in caught.value.message.splitlines()[1:]]
    assert {f"{place}_" for place in keys} <= set(told)
    assert set(told) <= {f"{place}_" for place in keys} | keys | {"network", "link.all_reduce[0].up_to"}
