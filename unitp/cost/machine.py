"""The machine that plans are priced on: which device each rank is, and the links between ranks, in seconds, bytes and FLOPs.

A machine comes from the defaults, from a built-in profile, or from a file (`unitp.cost.machine_file`). A plan keeps the `hash`
of the machine and of the formulas that it was priced with.
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
"""The version of the formulas of `unitp.cost`. It goes up when one changes, so that plans priced by older ones are recognised."""


class Pair(msgspec.Struct, frozen=True):
    """The link between two ranks, the same in both directions."""

    ranks: tuple[int, int]
    link: Link


class Machine(msgspec.Struct, frozen=True):
    """Devices and links. If only the first seven fields are given, all ranks have the same device and all links are the same.

    The defaults are those of a rank on one core of a current x86-64 host, rounded from measurements on SmolLM2-135M in
    float32. A plan depends only on the ratios of these numbers, so it also suits a machine with similar ratios.

    flops_per_s         1e11     measured in a prefill of 512 tokens on one thread
    memory_bytes_per_s  2e10     measured in the matrix-vector products of a decode step: torch reads 16 GB/s and NumPy 31,
                                 of the 42 that one thread can read
    operator_s          5e-6     seconds to call an operator (13 us in MXNet, less in the others)
    link_latency_s      5e-6     an all_reduce of 2 KB between 2 ranks takes 4.7 us over MPI
    link_bytes_per_s    2e9      an all_reduce of 16 MB between 2 ranks: 5.9 GB/s over MPI, 1.4 over gloo, 0.8 over KVStore
    call_s              30e-6    what a framework needs for a collective of any size in a real decode loop; without it a
                                 ring all_reduce would cost as much as reduce_scatter and all_gather together, and decode
                                 would have twice as many collectives as Megatron
    memory_bytes        inf      the memory of each device, which is a limit for plans
    name                         the name of the profile or file
    devices                      device classes by name; if there are none, the fields above describe the device of every rank
    ranks                        the device class of each rank; if it is empty, every rank has the only class
    axes                         by axis of the mesh, the link along it, if it has one of its own
    network, ranks_per_node      the link between nodes, and the number of consecutive ranks on each node
    pairs                        the links between two given ranks, which take precedence over all others
    link_kinds                   the `kinds` of the link that the fields above describe
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
        """A short hash of the cost model: of the numbers of this machine, and of the version of the formulas."""
        return hashlib.sha256(msgspec.json.encode((FORMULAS, self))).hexdigest()[:12]

    @property
    def link(self) -> Link:
        """The link between ranks for which no other is given."""
        return Link(self.link_latency_s, self.link_bytes_per_s, self.call_s, self.link_kinds)

    def class_of(self, rank: int) -> str:
        """Return the name of a rank's device class; "" if all ranks have the default device."""
        return self.ranks[rank] if self.ranks else next(iter(self.devices), "")

    def device(self, rank: int) -> Device:
        """Return the device of a rank while no other rank works on its host."""
        if self.devices:
            return self.devices[self.class_of(rank)]
        flops = {"float32": self.flops_per_s}
        return Device(flops, self.memory_bytes_per_s, self.operator_s, self.memory_bytes)

    def working(self, rank: int, mesh: Mesh) -> Device:
        """Return the device of a rank while all ranks of its host work."""
        return self.device(rank).among(min(self.ranks_per_node or mesh.size, mesh.size))

    def program_s(self, mesh: Mesh) -> float:
        """Return the seconds that each call of a program costs in addition to its instructions, on the rank where that is most."""
        return max(self.working(rank, mesh).program_s for rank in range(mesh.size))

    def between(self, axis: str, a: int, b: int) -> Link:
        """Return the link between ranks `a` and `b`, whose coordinates differ along `axis` alone."""
        for pair in self.pairs:
            if {a, b} == set(pair.ranks):
                return pair.link
        if axis in self.axes:
            return self.axes[axis]
        if self.network is not None and a // self.ranks_per_node != b // self.ranks_per_node:
            return self.network
        return self.link

    def ring(self, axis: str, mesh: Mesh) -> Link:
        """Return the slowest link between neighbours in any ring along `axis`: a collective waits for it."""
        if not (self.pairs or self.network):
            return self.axes.get(axis, self.link)
        found: Link | None = None
        for group in mesh.groups(axis):
            for place, rank in enumerate(group if len(group) > 2 else group[:1]):
                link = self.between(axis, rank, group[(place + 1) % len(group)])
                found = link if found is None else found.worse(link)
        return found or self.link

    def require_fits(self, mesh: Mesh) -> None:
        """Check that this machine has a device for every rank of `mesh`, and links for axes and ranks of it alone.

        Raises MeshError, with all that does not fit.
        """
        if problems := list(self._misfits(mesh)):
            raise MeshError(
                f"machine {self.name or 'file'} does not fit the mesh {mesh}: {'; '.join(problems)}",
                hint="Change the mesh, or name each rank's device and the mesh's own axes in the machine file.",
            )

    def _misfits(self, mesh: Mesh) -> Iterator[str]:
        if self.ranks and len(self.ranks) != mesh.size:
            yield f"it has {len(self.ranks)} ranks, the mesh has {mesh.size}"
        yield from (f"axes.{axis} is not an axis of the mesh" for axis in self.axes if axis not in mesh.sizes)
        for number, pair in enumerate(self.pairs):
            if max(pair.ranks) >= mesh.size:
                yield f"pairs[{number}] names rank {max(pair.ranks)}, but the mesh has ranks 0 to {mesh.size - 1}"
