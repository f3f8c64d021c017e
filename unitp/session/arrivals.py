"""The tokens that ranks decide on, joined to steps of the whole batch as they come.

Each rank tells the tokens of its rows. A step is complete when all rows have told theirs, or have ended. All ranks that hold
the same rows must have decided alike: what they answer in the end is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from unitp.errors import RankError
from unitp.layout import Interval
from unitp.program.rows import Rows
from unitp.wire.messages import NO_TOKEN, Decoded, Reply, Told

Step = list[int | None]
"""The tokens of a step: one per row of the batch, or None for a row that has ended."""


class Arrivals:
    """What comes while a request is carried out. `say` is called with each complete step.

    `tellers` are the ranks that tell their tokens step by step, each with its rows of the batch.
    """

    def __init__(self, batch: int, tellers: Mapping[int, Interval], say: Callable[[Step], None]) -> None:
        self._batch, self._tellers, self._say = batch, tellers, say
        self._told: dict[int, list[tuple[int, ...]]] = {rank: [] for rank in tellers}
        self._over: set[int] = set()
        self._said = 0

    def heard(self, rank: int, message: Reply) -> None:
        """Take in what a rank tells or answers. What no rank should say is left for `problem`."""
        if isinstance(message, Told) and rank in self._told:
            start, stop = self._tellers[rank]
            if len(message.tokens) == stop - start:
                self._told[rank].append(message.tokens)
        elif isinstance(message, Decoded) and not message.problem:
            self._over.add(rank)
        while self._complete():
            self._say(self._step())
            self._said += 1

    def _complete(self) -> bool:
        """Whether the next step is: some rows have told their tokens, and all others have ended."""
        told = [rank for rank, steps in self._told.items() if len(steps) > self._said]
        return bool(told) and all(rank in self._over for rank in self._told if rank not in told)

    def _step(self) -> Step:
        tokens: Step = [None] * self._batch
        for rank, steps in self._told.items():
            if len(steps) > self._said:
                start, stop = self._tellers[rank]
                tokens[start:stop] = [None if token == NO_TOKEN else token for token in steps[self._said]]
        return tokens

    def problem(self, decided: Sequence[Rows], replies: Mapping[int, Reply]) -> str:
        """Why no token could be chosen after the steps that were said, or an empty text.

        Raises RankError if ranks with the same rows have not decided alike.
        """
        first: dict[Interval, int] = {}
        problems = []
        for rank, reply in replies.items():
            if not isinstance(reply, Decoded):
                raise RankError(f"rank {rank} answered {type(reply).__name__} instead of tokens")
            if self._told.get(rank, list(reply.steps)) != list(reply.steps):
                raise RankError(f"rank {rank} told other tokens step by step than in the end")
            other = first.setdefault(decided[rank].decided, rank)
            if reply != replies[other]:
                raise RankError(
                    f"rank {rank} has decided on other tokens than rank {other}, though both hold the same candidates: "
                    f"{_words(reply)} and {_words(replies[other])}"
                )
            if reply.problem and len(reply.steps) == self._said:  # other rows may have gone on to a later problem
                problems.append(reply.problem)
        if not problems and not self._said:
            raise RankError("the ranks made no step, and do not say why")
        return problems[0] if problems else ""


def _words(reply: Reply) -> str:
    return f"{[*reply.steps]}{' and ' + reply.problem if reply.problem else ''}" if isinstance(reply, Decoded) else ""
