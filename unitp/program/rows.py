"""The inputs and candidates of a language model by name, and which of their rows each rank holds in a step of decoding.

A step takes one token per row of the batch and leaves candidates for the next. Ranks can go on by themselves
(`unitp.ranks.decoding`) if each decides on all rows that it is given:

    rows of every input on rank r  ⊆  rows of the candidates on rank r,  all candidates of a row on one rank
"""

from __future__ import annotations

from typing import NamedTuple

from unitp.layout import Interval
from unitp.program.instructions import Collective, Program
from unitp.program.rank import intervals

TOKENS = "input_ids"
PLACES = ("position_ids", "write_indices", "kv_length")
"""The inputs that grow by one with each token of a row."""

INPUTS = (TOKENS, *PLACES, "logits_index")
CANDIDATES = ("top_values", "top_ids")


class Rows(NamedTuple):
    """What one rank decides on: its rows of the batch, and those of each input that it is given.

    `values` and `ids` are the program's names of the candidates. `apart`: no collective reaches ranks that hold other rows.
    """

    decided: Interval
    fed: dict[str, Interval]
    values: str
    ids: str
    apart: bool

    @property
    def enough(self) -> bool:
        """Whether the rank decides on all rows that it is given."""
        start, stop = self.decided
        return all(a == b or (start <= a and b <= stop) for a, b in self.fed.values())


def rows_of(program: Program, rank: int) -> Rows:
    """The rows of one rank, for a program that leaves `CANDIDATES`."""
    values, ids = program.outputs
    split = program.values[ids].layout.dims[0]
    crossed = {instruction.axis for instruction in program.instructions if isinstance(instruction, Collective)}
    return Rows(
        decided=intervals(program, ids, rank)[0],
        fed={name: intervals(program, name, rank)[0] for name in program.inputs},
        values=values,
        ids=ids,
        apart=split is None or crossed.isdisjoint(split.axes),
    )


def feeds_itself(program: Program) -> bool:
    """Whether all ranks can go on by themselves after a step of this program, which leaves `CANDIDATES`."""
    layouts = [program.values[name].layout for name in program.outputs]
    whole = all(split is None for layout in layouts for split in layout.dims[1:])
    ranks = range(program.mesh.size)
    return whole and layouts[0] == layouts[1] and all(rows_of(program, rank).enough for rank in ranks)
