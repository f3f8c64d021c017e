"""The turns of a generation: feed what its rows lack, and have the next tokens chosen, by the driver or by the ranks.

the driver   one step: after a prompt, if all logits are candidates, while calls are traced, and for programs after which
             the ranks cannot go on by themselves
the ranks    several steps for one request, if each row lacks one token; each step is said as soon as it is made
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from unitp.engine.engine import Array
from unitp.engine.sampling import NotFinite, choose
from unitp.ranks.courier import Errand
from unitp.session.arrivals import Step
from unitp.session.banks import Bank
from unitp.session.decoder import LAST_LOGITS, Decoder, Head
from unitp.session.executor import Executor
from unitp.wire.messages import Rules


class Turn(NamedTuple):
    """What a generation wants: feed `tokens` to the rows of `bank`, and choose new ones by `rules`, in at most `rules.steps` steps."""

    bank: Bank
    tokens: list[list[int]]
    head: Head
    rules: Rules


Say = Callable[[Step], None]


class Turns:
    """Makes turns on the ranks. Only the courier calls it."""

    def __init__(self, decoder: Decoder, executor: Executor) -> None:
        self._decoder, self._executor = decoder, executor

    def make(self, errand: Errand[Any], turn: Turn, say: Say) -> str:
        """Make a turn, and `say` the tokens of each step: one per row, or None for a row that has ended.

        Returns why no token of the next step could be chosen, or an empty text. Raises Abandoned between two calls of the ranks
        if nobody waits for the errand any more, and InputError if the ranks refuse a call, after the steps that were made.
        """
        errand.require_owner()
        if max(map(len, turn.tokens)) == 1 and turn.head.last:
            call = self._decoder.call(turn.bank.held, turn.tokens, 1, turn.head)
            if self._executor.decides(call.sizes, turn.head.outputs, turn.bank):
                steps = min(turn.rules.steps, max(turn.rules.left), 1 + call.room)
                rules = msgspec.structs.replace(turn.rules, steps=steps)
                told = self._remembering(turn, say)
                return self._executor.decode(call.sizes, call.inputs, turn.bank, rules, told)
        return self._by_driver(errand, turn, say)

    def _remembering(self, turn: Turn, say: Say) -> Say:
        """Like `say`, but the bank knows which tokens its rows hold: in each step, the one before that of the step."""
        last = [tokens[-1] if tokens else 0 for tokens in turn.tokens]

        def told(tokens: Step) -> None:
            for row, token in enumerate(tokens):
                if token is not None:
                    turn.bank.held[row].append(last[row])
                    last[row] = token
            say(tokens)

        return told

    def _by_driver(self, errand: Errand[Any], turn: Turn, say: Say) -> str:
        def execute(sizes: dict[str, int], outputs: tuple[str, ...], inputs: dict[str, Array]) -> dict[str, Array]:
            errand.require_owner()
            return self._executor.execute(sizes, outputs, inputs, turn.bank)

        outputs = self._decoder.feed(execute, turn.bank.held, turn.tokens, turn.head)
        try:
            say([chosen(outputs[row], turn, row) if left else None for row, left in enumerate(turn.rules.left)])
        except NotFinite as error:
            return error.message
        return ""


def chosen(outputs: dict[str, Array], turn: Turn, row: int) -> int:
    """The next token of a row, from the outputs for its last position."""
    if turn.head is LAST_LOGITS:
        values, ids = outputs["logits"][0], np.arange(outputs["logits"].shape[-1])
    else:
        values, ids = outputs["top_values"][0], outputs["top_ids"][0]
    return choose(values, ids, turn.rules.sampling, row, turn.rules.first)
