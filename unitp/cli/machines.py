"""`unitp machines`: the built-in profiles, or what a profile or a machine file says."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import rich_click as click

from unitp.cli.options import complete_machine, json_option
from unitp.cli.output import print_json, print_table, say, table
from unitp.errors import InputError

if TYPE_CHECKING:
    from unitp.cost import Device, Link, Machine


@click.command("machines")
@click.argument("names", metavar="[NAME|FILE]...", nargs=-1, shell_complete=complete_machine)
@json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Show the machines that plans can be made for (--machine): the built-in profiles.

    With names or files, show their contents. A file with faults is an error that lists all of them.
    """
    from unitp.cost.machine_file import load_machine, profiles

    machines, wrong = [], []
    for name in names or profiles():
        try:
            machines.append((name, load_machine(name)))
        except InputError as error:
            wrong.append(error)
    if wrong:
        raise InputError("\n".join(error.message for error in wrong), hint=wrong[0].hint)
    if as_json:
        print_json({"machines": [_plain(name, machine) for name, machine in machines]})
        return
    for name, machine in machines:
        _print(name, machine)
    if not names:
        say("Besides these, any TOML file; docs/command-line.md describes it.")


def _print(name: str, machine: Machine) -> None:
    ranks = f", {len(machine.ranks)} ranks" if machine.ranks else ""
    node = f", {machine.ranks_per_node} ranks to a node" if machine.ranks_per_node else ""
    title = name if machine.name in ("", name) else f"{name}: {machine.name}"
    say((title, "bold"), f"{ranks}{node}")
    rows = table("", "what", "numbers")
    for kind, device in _devices(machine).items():
        rows.add("device", kind, _device_text(device))
    for kind, link in _links(machine).items():
        rows.add("link", kind, _link_text(link))
    print_table(rows)


def _devices(machine: Machine) -> dict[str, Device]:
    """The classes of devices, with the ranks of each if the machine assigns ranks."""
    if not machine.ranks:
        return machine.devices
    ranks = {kind: [r for r, own in enumerate(machine.ranks) if own == kind] for kind in machine.devices}
    return {f"{kind} (ranks {', '.join(map(str, ranks[kind]))})": device for kind, device in machine.devices.items()}


def _links(machine: Machine) -> dict[str, Link]:
    found = {"between ranks": machine.link}
    if machine.network is not None:
        found["between nodes"] = machine.network
    found |= {f"along {axis}": link for axis, link in machine.axes.items()}
    return found | {f"ranks {pair.ranks[0]} and {pair.ranks[1]}": pair.link for pair in machine.pairs}


def _device_text(device: Device) -> str:
    from unitp.cost.bytes import format_bytes

    flops = ", ".join(f"{dtype} {_si(speed)}FLOP/s" for dtype, speed in device.flops_per_s.items())
    memory = f"{format_bytes(device.memory_bytes)} at " if isfinite(device.memory_bytes) else "memory at "
    return f"{flops}; {memory}{_si(device.memory_bytes_per_s)}B/s; {device.operator_s * 1e6:g} us an operator"


def _link_text(link: Link) -> str:
    return f"{link.latency_s * 1e6:g} us a step, {_si(link.bytes_per_s)}B/s, {link.call_s * 1e6:g} us a call"


def _si(value: float) -> str:
    """A number with an SI prefix: `19.5 T` for 19.5e12."""
    for prefix, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.4g} {prefix}"
    return f"{value:.4g} "


def _plain(name: str, machine: Machine) -> dict[str, Any]:
    from unitp.cost.record import record

    return {"name": name, "hash": machine.hash, **{k: v for k, v in record(machine).items() if k != "name"}}
