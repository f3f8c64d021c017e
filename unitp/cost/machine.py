"""The numbers of a machine that prices are made of, in seconds, bytes and FLOPs. All devices are alike.

A plan keeps the `hash` of the numbers and of the formulas it was priced with.
"""

from __future__ import annotations

import hashlib

import msgspec

FORMULAS = 1
"""Counts up when a formula of `unitp.cost` changes, so that plans priced by older ones are told apart."""


class Machine(msgspec.Struct, frozen=True):
    """One rank's device and the link between two of them.

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
    held_byte_s         5e-12    per call and byte of a parameter or cache held: a tenth of reading it. Without it every
                                 rank would keep everything and slice it at each call
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
        """Names the cost model: its numbers and its formulas."""
        return hashlib.sha256(msgspec.json.encode((FORMULAS, self))).hexdigest()[:12]
