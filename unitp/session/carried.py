"""Whether a transport carries what a program moves, found before the ranks are given the program."""

from __future__ import annotations

from unitp.errors import BackendError
from unitp.graph.values import in_arrays
from unitp.plugins.transports import Carrier
from unitp.program.instructions import Local, Mask, Program, Slice


def require_carried(program: Program, carrier: Carrier) -> None:
    """Raise BackendError, with the first of each dtype, for collectives of a dtype that the transport does not carry."""
    refused: dict[str, str] = {}
    for number, instruction in enumerate(program.instructions):
        if isinstance(instruction, Local | Slice | Mask) or program.mesh.axis_size(instruction.axis) < 2:
            continue
        dtype = in_arrays(program.values[instruction.input].dtype)
        if carrier.lacks(dtype):
            refused.setdefault(dtype, f"instruction {number} moves {dtype}")
    if refused:
        raise BackendError(
            f"transport {carrier.name} does not carry {', '.join(refused)}: {', '.join(refused.values())}",
            hint=f"It carries {', '.join(carrier.dtypes)}. Give another --transport.",
        )
