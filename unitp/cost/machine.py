"""The numbers of a machine that prices are made of. All devices alike; seconds, bytes, FLOPs."""

from __future__ import annotations

import hashlib

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """One rank's device and the link between two of them.

    The defaults are those of a rank on one core of a current x86-64 host: prefill runs at 1e11 FLOP/s, decode GEMVs read at
    about 20 GB/s; links are
    between MPI's (4 GB/s) and gloo's (1.5 to 3 GB/s); 30 us are added per call, for what a collective costs a framework
    inside a real decode loop (without it a plan takes twice the collectives of Megatron). A byte held costs a tenth
    of reading it, at every call, or every rank would keep everything.
    """

    flops_per_s: float = 1e11
    memory_bytes_per_s: float = 2e10
    operator_s: float = 5e-6
    link_latency_s: float = 5e-6
    link_bytes_per_s: float = 2e9
    call_s: float = 30e-6
    held_byte_s: float = 5e-12

    @property
    def hash(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]
