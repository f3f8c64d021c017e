"""Megatron's plans as pins, for the names of parameters in a GGUF file. The planner's own plans are compared with them.

Shoeybi et al., "Megatron-LM", 2019; Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022.
"""

from __future__ import annotations

COLUMNS_THEN_ROWS = (
    "blk.*.attn_[qkv].weight: x=R, y=S(2)@tp",
    "blk.*.ffn_gate.weight: x=R, y=S(2)@tp",
    "blk.*.ffn_up.weight: x=R, y=S(2)@tp",
    "blk.*.attn_output.weight: x=S(2)@tp, y=P@tp",
    "blk.*.ffn_down.weight: x=S(2)@tp, y=P@tp",
)
MEGATRON = (*COLUMNS_THEN_ROWS, "add_*: x0=R, x1=R", "*_norm.weight: x=R, y=R")
"""Two all_reduces in a layer; the activations between them are whole on every rank."""


def by_sequence(phase: str = "") -> tuple[str, ...]:
    """Reduce_scatter and all_gather instead, what lies between split over the sequence; of one phase only where it is named."""
    where = f"{phase}/" if phase else ""
    between = (f"{where}add_*: x0=S(1)@tp, x1=S(1)@tp", f"{where}blk.*_norm.weight: x=S(1)@tp, y=S(1)@tp")
    return *COLUMNS_THEN_ROWS, *between
