"""The numbers of a machine that prices are made of, in seconds, bytes and FLOPs: which device each rank is, and what links them.

A plan keeps the `hash` of the numbers and of the formulas it was priced with. Machines come from the defaults, from a
built-in profile or from a file (`unitp.cost.machine_file`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from math import inf

import msgspec

from unitp.cost.device import Device
from unitp.cost.link import Link, Stretch
from unitp.errors import MeshError
from unitp.mesh import Mesh

FORMULAS = 4
"""Counts up when a formula of `unitp.cost` changes, so that plans priced by older ones are told apart."""


class Pair(msgspec.Struct, frozen=True):
    """The link between two ranks, in either direction."""

    ranks: tuple[int, int]
    link: Link


class Machine(msgspec.Struct, frozen=True):
    """Devices and links. With the first fields alone, all ranks are alike and so are all links.

    The defaults are those of a rank on one core of a current x86-64 host, rounded from measurements on SmolLM2-135M in
    float32; another machine keeps its plans as long as their ratios are alike.

    flops_per_s         1e11     a prefill of 512 tokens, one thread
    memory_bytes_per_s  2e10     the matrix-vector products of a decode step: torch reads 16 GB/s, NumPy 31, of the 42
                                 that one thread can
    operator_s          5e-6     calling one operator (13 us in MXNet, less in the others)
    link_latency_s      5e-6     an all_reduce of 2 KB between 2 ranks by MPI takes 4.7 us
    link_bytes_per_s    2e9      an all_reduce of 16 MB between 2 ranks: 5.9 GB/s by MPI, 1.4 by gloo, 0.8 by KVStore
    call_s              30e-6    what a collective costs a framework inside a real decode loop, whatever its size; else
                                 a ring all_reduce would cost as much as reduce_scatter + all_gather, and decode would
                                 take twice Megatron's collectives
    memory_bytes        inf      of each device; a plan needs no more
    name                         of the profile or file
    devices                      classes by name; with none, every rank is the device that the fields above describe
    ranks                        the class of each rank; with none, every rank is of the only class
    axes                         the link along an axis of the mesh, where it has one of its own
    network, ranks_per_node      the link between ranks of different nodes, each of so many consecutive ranks
    pairs                        the link between two ranks; goes before all others
    link_kinds                   what differs for a kind of collective on the link that the fields above describe
    """

    flops_per_s: float = 1e11
    memory_bytes_per_s: float = 2e10
    operator_s: float = 5e-6
    link_latency_s: float = 5e-6
    link_bytes_per_s: float = 2e9
    call_s: float = 30e-6
    memory_bytes: float = inf
    name: str = ""
    devices: dict[str, Device] = {}
    ranks: tuple[str, ...] = ()
    axes: dict[str, Link] = {}
    network: Link | None = None
    ranks_per_node: int = 0
    pairs: tuple[Pair, ...] = ()
    link_kinds: dict[str, tuple[Stretch, ...]] = {}

    @property
    def hash(self) -> str:
        """Names the cost model: its numbers and its formulas."""
        return hashlib.sha256(msgspec.json.encode((FORMULAS, self))).hexdigest()[:12]

    @property
    def link(self) -> Link:
        """The link that holds where no other is given."""
        return Link(self.link_latency_s, self.link_bytes_per_s, self.call_s, self.link_kinds)

    def class_of(self, rank: int) -> str:
        """The name of a rank's device class ("" where all are the default)."""
        return self.ranks[rank] if self.ranks else next(iter(self.devices), "")

    def device(self, rank: int) -> Device:
        """The device of a rank."""
        if self.devices:
            return self.devices[self.class_of(rank)]
        flops = {"float32": self.flops_per_s}
        return Device(flops, self.memory_bytes_per_s, self.operator_s, self.memory_bytes)

    def working(self, rank: int, mesh: Mesh) -> Device:
        """The device of a rank while all ranks of its host work."""
        return self.device(rank).among(min(self.ranks_per_node or mesh.size, mesh.size))

    def program_s(self, mesh: Mesh) -> float:
        """What each call of a program costs beside its instructions: on the rank where that is most."""
        return max(self.working(rank, mesh).program_s for rank in range(mesh.size))

    def between(self, axis: str, a: int, b: int) -> Link:
        """The link between two ranks that differ along `axis`."""
        for pair in self.pairs:
            if {a, b} == set(pair.ranks):
                return pair.link
        if axis in self.axes:
            return self.axes[axis]
        if self.network is not None and a // self.ranks_per_node != b // self.ranks_per_node:
            return self.network
        return self.link

    def ring(self, axis: str, mesh: Mesh) -> Link:
        """What holds a collective over `axis` up: the worst link between neighbours of any of its rings."""
        if not (self.pairs or self.network):
            return self.axes.get(axis, self.link)
        found: Link | None = None
        for group in mesh.groups(axis):
            for place, rank in enumerate(group if len(group) > 2 else group[:1]):
                link = self.between(axis, rank, group[(place + 1) % len(group)])
                found = link if found is None else found.worse(link)
        return found or self.link

    def require_fits(self, mesh: Mesh) -> None:
        """Raise MeshError, with all that is wrong, where this is no machine for `mesh`."""
        if problems := list(self._misfits(mesh)):
            raise MeshError(
                f"machine {self.name or 'file'} does not fit the mesh {mesh}: {'; '.join(problems)}",
                hint="Change the mesh, or name each rank's device and the mesh's own axes in the machine file.",
            )

    def _misfits(self, mesh: Mesh) -> Iterator[str]:
        if self.ranks and len(self.ranks) != mesh.size:
            yield f"its ranks are {len(self.ranks)}, the mesh has {mesh.size}"
        yield from (f"axes.{axis} is not an axis of the mesh" for axis in self.axes if axis not in mesh.sizes)
        for number, pair in enumerate(self.pairs):
            if max(pair.ranks) >= mesh.size:
                yield f"pairs[{number}] names rank {max(pair.ranks)}, the mesh has {mesh.size}"
