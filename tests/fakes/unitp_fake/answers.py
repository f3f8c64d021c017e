"""What the fake decoder says after a row of tokens: pseudo-random scores that depend on every token and its place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PRIME, BASE = (1 << 61) - 1, 1_000_003


def scores(row: Sequence[int], vocab: int) -> npt.NDArray[np.float32]:
    """The logits of the token after `row`, [vocab], no two alike."""
    value = 7
    for token in row:
        value = (value * BASE + token + 2) % PRIME
    order = np.random.default_rng(value).permutation(vocab)
    return (order / 8).astype(np.float32)
