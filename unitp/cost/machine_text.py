"""Writes a machine as the text of a machine file (TOML), with comments on its numbers.

`unitp.cost.machine_file.parse_machine` reads the text as the same machine, with numbers rounded to the digits written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

import msgspec

from unitp.cost.device import Device, Points, Rate
from unitp.cost.link import Link, Stretch
from unitp.cost.machine import Machine
from unitp.texts import toml_key, toml_text

Notes = Mapping[str, str]
"""Comments by the place of an entry (`devices.cpu.operators.Add`, `link.all_reduce`); that of "" is the head of the file."""

DIGITS = 4
"""Significant digits of a number in the file: more than measurements have."""


def machine_text(machine: Machine, notes: Notes | None = None, digits: int = DIGITS) -> str:
    """Return a machine as TOML, with numbers rounded to `digits` significant digits."""
    return "\n".join(_Writer(notes or {}, digits).machine(machine)) + "\n"


def rounded(machine: Machine, digits: int = DIGITS) -> Machine:
    """Return the machine as it would be read from its text, with rounded numbers."""

    def walk(value: object) -> object:
        if isinstance(value, float):
            return value if value == inf else float(f"{value:.{digits}g}")
        if isinstance(value, msgspec.Struct):
            return type(value)(*(walk(getattr(value, name)) for name in value.__struct_fields__))
        if isinstance(value, dict):
            return {key: walk(inner) for key, inner in value.items()}
        return tuple(map(walk, value)) if isinstance(value, tuple) else value

    made = walk(machine)
    assert isinstance(made, Machine)
    return made


class _Writer:
    def __init__(self, notes: Notes, digits: int) -> None:
        self.notes, self.digits = notes, digits

    def machine(self, machine: Machine) -> Iterator[str]:
        yield from (f"# {line}".rstrip() for line in self.notes.get("", "").splitlines())
        yield f"name = {toml_text(machine.name)}"
        if machine.ranks:
            yield f"ranks = [{', '.join(map(toml_text, machine.ranks))}]"
        if machine.ranks_per_node:
            yield f"ranks_per_node = {machine.ranks_per_node}"
        devices = machine.devices or {"device": machine.device(0)}
        for name, device in devices.items():
            yield from self.device(device, f"devices.{toml_key(name)}")
        yield from self.link(machine.link, "link")
        if machine.network is not None:
            yield from self.link(machine.network, "network")
        for axis, link in machine.axes.items():
            yield from self.link(link, f"axes.{toml_key(axis)}")
        for pair in machine.pairs:
            yield from self.link(pair.link, "pairs", f"ranks = [{pair.ranks[0]}, {pair.ranks[1]}]")

    def entry(self, key: str, value: float, place: str) -> str:
        return self.line(f"{key} = {self.number(value)}", f"{place}{key}")

    def line(self, text: str, place: str) -> str:
        note = self.notes.get(place)
        return f"{text:<40} # {note}" if note else text

    def number(self, value: float) -> str:
        return f"{value:.{self.digits}g}"

    def device(self, device: Device, place: str) -> Iterator[str]:
        yield ""
        yield from self.comment(place)
        yield f"[{place}]"
        flops = ", ".join(f"{toml_key(dtype)} = {self.number(f)}" for dtype, f in device.flops_per_s.items())
        yield self.line(f"flops_per_s = {{ {flops} }}", f"{place}.flops_per_s")
        yield self.entry("memory_bytes_per_s", device.memory_bytes_per_s, f"{place}.")
        if device.memory_bytes < inf:
            yield self.line(f"memory = {int(device.memory_bytes)}", f"{place}.memory")
        yield self.entry("operator_s", device.operator_s, f"{place}.")
        if device.program_s:
            yield self.entry("program_s", device.program_s, f"{place}.")
        if device.matmul:
            yield from self.comment(f"{place}.matmul")
            yield f"[{place}.matmul]"
            for dtype, points in device.matmul.items():
                yield self.line(f"{toml_key(dtype)} = {self.points(points)}", f"{place}.matmul.{dtype}")
        if device.operators:
            yield from self.comment(f"{place}.operators")
            yield f"[{place}.operators]"
            for name, rate in device.operators.items():
                yield self.line(f"{toml_key(name)} = {self.rate(rate)}", f"{place}.operators.{name}")
        for ranks, busy in device.busy.items():
            yield from self.device(busy, f"{place}.busy.{ranks}")

    def comment(self, place: str) -> Iterator[str]:
        yield from (f"# {line}" for line in self.notes.get(place, "").splitlines())

    def points(self, points: Points) -> str:
        return "[" + ", ".join(f"[{self.number(n)}, {self.number(f)}]" for n, f in points) + "]"

    def rate(self, rate: Rate) -> str:
        known = {name: getattr(rate, name) for name in rate.__struct_fields__}
        return "{ " + ", ".join(f"{k} = {self.number(v)}" for k, v in known.items() if v is not None) + " }"

    def link(self, link: Link, place: str, *more: str) -> Iterator[str]:
        yield ""
        yield from self.comment(place)
        yield f"[[{place}]]" if more else f"[{place}]"
        yield from more
        yield from (
            self.entry(name, getattr(link, name), f"{place}.") for name in ("latency_s", "bytes_per_s", "call_s")
        )
        for kind, stretches in link.kinds.items():
            yield from self.comment(f"{place}.{kind}")
            yield f"{toml_key(kind)} = [{', '.join(map(self.stretch, stretches))}]"

    def stretch(self, stretch: Stretch) -> str:
        end = f"up_to = {int(stretch.up_to)}, " if stretch.up_to < inf else ""
        numbers = ((name, getattr(stretch, name)) for name in ("latency_s", "bytes_per_s", "call_s"))
        return "{ " + end + ", ".join(f"{name} = {self.number(value)}" for name, value in numbers) + " }"
