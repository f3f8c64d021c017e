"""Choosing the next token, from candidates as NumPy arrays and in float64, so that every backend is treated alike.

Driver and ranks do it by this one function of the candidates' bits. Ranks that hold the same bits choose the same token.

    1. values are divided by `temperature` (0: the largest value wins, nothing is drawn)
    2. `top_k`: the k largest stay (0: all); of equal values the lower id stays
    3. softmax over what stays; `top_p`: the shortest run of the likeliest whose probabilities sum to at least p stays
    4. u in [0, 1) is drawn from Philox keyed by (seed, sequence), with the step as counter; the token is the first,
       in the order of ids, at which the summed probability exceeds u

The order temperature, top-k, top-p is that of Hugging Face transformers. Drawing in the order of ids makes the choice
a continuous function of the values: ranks that differ in the last bit of a value swap no tokens.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.errors import InputError, RankError

Values = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


class NotFinite(RankError):  # noqa: N818  (what the values are)
    """No token can be chosen, because the largest value is NaN or infinite."""


class Sampling(msgspec.Struct, frozen=True):
    """How tokens are chosen; the default is greedy."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def require(self) -> None:
        """Raise InputError with everything that is wrong."""
        found = []
        if not 0.0 <= self.temperature < float("inf"):
            found.append(f"temperature {self.temperature} is not a number from 0 (greedy) on")
        if self.top_k < 0:
            found.append(f"top_k {self.top_k} is negative (0 keeps all tokens)")
        if not 0.0 < self.top_p <= 1.0:
            found.append(f"top_p {self.top_p} is not above 0 and at most 1")
        if not 0 <= self.seed < 1 << 64:
            found.append(f"seed {self.seed} is not a number of 64 bits")
        if found:
            raise InputError("; ".join(found))

    def candidates(self, vocab: int) -> int:
        """Return how many of the largest values the ranks return: 1 for greedy, else enough for `top_k`, or all `vocab`.

        It is a power of two or `vocab`, so that many different `top_k` need only few programs.
        """
        if self.temperature == 0.0:
            return 1
        return min(1 << (self.top_k - 1).bit_length(), vocab) if self.top_k else vocab


def choose(values: Values, ids: Ids, sampling: Sampling, sequence: int, step: int) -> int:
    """Return the id of the next token of `sequence` (its place in the batch) at `step` (0 is the first new token).

    `values` [n] and `ids` [n] are the candidates. Raises NotFinite if the largest value is NaN or infinite.
    """
    if not np.isfinite(values.max()):  # NaN is the maximum where there is one; below it, minus infinity is a mask
        raise NotFinite(f"the model's output is {values.max()} at new token {step} of sequence {sequence}")
    order = np.lexsort((ids, -values))
    values, ids = values[order].astype(np.float64), ids[order]
    if sampling.temperature == 0.0:
        return int(ids[0])
    with np.errstate(over="ignore"):  # below the largest value, anything may be infinitely far
        probabilities = softmax((values - values[0])[: sampling.top_k or None] / sampling.temperature)
    kept = (
        int(np.searchsorted(np.cumsum(probabilities), sampling.top_p)) + 1
        if sampling.top_p < 1.0
        else len(probabilities)
    )
    return int(draw(probabilities[:kept], ids[:kept], uniform(sampling.seed, sequence, step)))


def softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the probabilities [n] that are proportional to exp(values [n])."""
    with np.errstate(under="ignore"):
        powers: npt.NDArray[np.float64] = np.exp(values - values.max())
    powers /= powers.sum()
    return powers


def draw(probabilities: npt.NDArray[np.float64], ids: Ids, u: float) -> int:
    """Return the first of `ids`, in ascending order, at which the summed (and normalised) probability exceeds `u`."""
    order = np.argsort(ids)
    sums = np.cumsum(probabilities[order])
    place = int(np.searchsorted(sums, u * sums[-1], side="right"))
    return int(ids[order[min(place, len(ids) - 1)]])


def uniform(seed: int, sequence: int, step: int) -> float:
    """Return the number in [0, 1) for a sequence and step: the first that Philox gives for this key and counter."""
    key = np.array([seed, sequence], np.uint64)
    return float(np.random.Generator(np.random.Philox(key=key, counter=[step, 0, 0, 0])).random())
