"""Decoding in the ranks: each decides on the next token of its rows and feeds it, several steps for one request.

    inputs -> program -> candidates of this rank's rows -> `choose` -> inputs of the next step, updated in place

Ranks exchange no tokens: the program leaves the same bits to all ranks that hold the same rows (`unitp.program.alike`), and
the choice is a function of these bits. A row that has ended is fed as the driver feeds it: its last token again, at the
first place that the row does not hold.

Ranks stay in step. If no collective reaches ranks with other rows, a group ends when its rows have ended or no token can be
chosen. Else all ranks make all steps of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unitp.engine.engine import Array
from unitp.engine.sampling import NotFinite, choose
from unitp.layout import Interval
from unitp.program.rows import PLACES, TOKENS, Rows
from unitp.wire.messages import NO_TOKEN, Decoded, Rules

Inputs = dict[str, npt.NDArray[Any]]


def decode(
    run: Callable[[Inputs], Mapping[str, Array]],
    rows: Rows,
    inputs: Inputs,
    rules: Rules,
    say: Callable[[tuple[int, ...]], None],
) -> Decoded:
    """Make the steps of a request on one rank, and `say` the tokens of each. `inputs` are those of the first; they change.

    `run` makes one step; the InputError that it may raise comes out, since then all ranks raise one.
    """
    deciding, problem = Deciding(rows.decided, rules), ""
    steps: list[tuple[int, ...]] = []
    for step in range(rules.steps):
        over = bool(problem) or deciding.over
        if over and rows.apart:
            break
        found = run(inputs)
        if over:
            continue
        try:
            tokens = deciding.next(found[rows.values], found[rows.ids], rules.first + step)
        except NotFinite as error:
            problem = error.message
            continue
        steps.append(tokens)
        say(tokens)
        move(inputs, rows, tokens, deciding.left)
    return Decoded(tuple(steps), problem)


class Deciding:
    """Chooses the tokens of some rows of the batch, and knows how many each may still get: 0 if it has ended (`left`)."""

    def __init__(self, rows: Interval, rules: Rules) -> None:
        self._start, self._sampling = rows[0], rules.sampling
        self.left, self._stop_ids = list(rules.left[slice(*rows)]), frozenset(rules.stop_ids)

    @property
    def over(self) -> bool:
        """Whether all rows have ended."""
        return not any(self.left)

    def next(self, values: Array, ids: Array, number: int) -> tuple[int, ...]:
        """New token `number` of each row from its candidates [rows, 1, candidates], NO_TOKEN for a row that has ended.

        Raises NotFinite for the first row of which no token can be chosen.
        """
        tokens = [
            choose(values[row, 0], ids[row, 0], self._sampling, self._start + row, number) if left else NO_TOKEN
            for row, left in enumerate(self.left)
        ]
        for row, token in enumerate(tokens):
            if token != NO_TOKEN:
                self.left[row] = 0 if token in self._stop_ids else self.left[row] - 1
        return tuple(tokens)


def move(inputs: Inputs, rows: Rows, tokens: Sequence[int], left: Sequence[int]) -> None:
    """Turn the inputs of a step that made these tokens into those of the next one. Only rows that have some left get theirs."""
    places = [name for name in PLACES if name in inputs]
    here = _here(rows.decided, rows.fed[TOKENS])
    if all(left):
        for name in places:
            inputs[name] += 1
        inputs[TOKENS][:, 0] = tokens[here]
        return
    made, going_on = np.array(tokens) != NO_TOKEN, np.array(left) > 0
    for name in places:
        inputs[name][made[_here(rows.decided, rows.fed[name])]] += 1
    inputs[TOKENS][going_on[here], 0] = np.array(tokens)[here][going_on[here]]


def _here(decided: Interval, fed: Interval) -> slice:
    """Where the rows of an input are among the rows that the rank decides on."""
    return slice(fed[0] - decided[0], fed[1] - decided[0])
