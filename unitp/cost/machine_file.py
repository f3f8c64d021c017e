"""Machines from TOML files, and from the built-in profiles, which are such files too.

`unitp.cost.machine_tables` lists what a file may say. `unitp.cost.machine_text` writes one.
"""

from __future__ import annotations

import os
from math import inf
from pathlib import Path

from unitp.cost.device import Device, Rate
from unitp.cost.link import KINDS, Link, Stretch
from unitp.cost.machine import Machine, Pair
from unitp.cost.machine_profiles import MACHINES
from unitp.cost.machine_tables import BusyTable, DeviceTable, LinkTable, MachineTable, RateTable, StretchTable
from unitp.errors import InputError, did_you_mean
from unitp.files import parse_toml, read_text
from unitp.tables import read

MOST_BYTES = 1 << 20
"""The most bytes of a machine file. `tomllib` reads a megabyte a second. A measured host takes 10 kB, the pairs of 64 ranks 200."""


def profiles() -> list[str]:
    """Return the names of all profiles, those of plug-ins included."""
    return sorted(MACHINES.all())


def load_machine(name: str | os.PathLike[str]) -> Machine:
    """Return a machine by the name of a profile, or from a file. Raises InputError that lists every fault of the file."""
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
    """Return a machine from the text of a file. Raises InputError that lists every fault of it.

    where   what messages call the file
    name    the name of a machine whose file gives it none
    """
    hint = "docs/command-line.md describes machine files."
    table = read(parse_toml(text, where), MachineTable, where, "a machine file", hint=hint)
    link = _link(table.link)
    return Machine(
        link_latency_s=link.latency_s,
        link_bytes_per_s=link.bytes_per_s,
        call_s=link.call_s,
        link_kinds=link.kinds,
        name=name if table.name is None else table.name,
        devices={key: _device(own) for key, own in table.devices.items()},
        ranks=table.ranks,
        axes={axis: _link(own) for axis, own in table.axes.items()},
        network=None if table.network is None else _link(table.network),
        ranks_per_node=table.ranks_per_node or 0,
        pairs=tuple(Pair(own.ranks, _link(own)) for own in table.pairs),
    )


def _device(table: BusyTable) -> Device:
    """Return the device of a table. A BusyTable has neither a limit of memory nor a device for other numbers of ranks."""
    memory, busy = (table.memory, table.busy) if isinstance(table, DeviceTable) else (None, {})
    return Device(
        flops_per_s=table.flops_per_s,
        memory_bytes_per_s=table.memory_bytes_per_s,
        operator_s=table.operator_s,
        memory_bytes=inf if memory is None else float(memory),
        matmul=table.matmul,
        operators={name: _rate(own) for name, own in table.operators.items()},
        program_s=table.program_s,
        busy={int(ranks): _device(own) for ranks, own in busy.items()},
    )


def _rate(table: RateTable) -> Rate:
    return Rate(table.operator_s, table.flops_per_s, table.bytes_per_s)


def _link(table: LinkTable) -> Link:
    kinds = {kind: own for kind in KINDS if (own := getattr(table, kind)) is not None}
    stretches = {
        kind: tuple(map(_stretch, [own] if isinstance(own, StretchTable) else own)) for kind, own in kinds.items()
    }
    return Link(table.latency_s, table.bytes_per_s, table.call_s, stretches)


def _stretch(table: StretchTable) -> Stretch:
    return Stretch(table.latency_s, table.bytes_per_s, table.call_s, inf if table.up_to is None else float(table.up_to))
