"""One seed, one text: sampled tokens are the same on every backend and at every width, by the fourth rule of agreement.

Where a run leaves the tokens of the oracle (NumPy float64, unsharded), the draw must have been so close to a bound of
the cumulative distribution that an error within the second rule moves it across (`unitp.comparison.draws.possible`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pytest
from places import BACKENDS, at, small_model, smollm2, smollm2_plan

from unitp.comparison.draws import possible
from unitp.comparison.metrics import POSITIONS, bound, first_difference, relative_error
from unitp.comparison.oracle import one_rank
from unitp.engine.sampling import Sampling
from unitp.frontends.model import Model
from unitp.session.launch import launch
from unitp.session.session import Session

SAMPLING = Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=7)
PROMPTS = [[7, 250, 3, 99, 41], [11, 8, 200, 1, 76]]
CAPITAL = [[504, 3575, 282, 4649, 314]]

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


class Sampled(NamedTuple):
    """The oracle's tokens, the logits from which each was drawn, and the relative error that a float32 run may have."""

    tokens: list[list[int]]
    logits: list[np.ndarray]
    allowed: float

    def require(self, tokens: list[list[int]]) -> None:
        """Assert that `tokens` are the oracle's, or leave it where a right run may."""
        for sequence, (found, right) in enumerate(zip(tokens, self.tokens, strict=True)):
            step = first_difference(found, right)
            if step is None:
                continue
            logits = self.logits[sequence][step]
            error = self.allowed * float(np.linalg.norm(logits))
            choices = possible(logits, np.arange(logits.size), SAMPLING, sequence, step, error)
            assert found[step] in choices, f"sequence {sequence}, token {step}: {found[step]} is none of {choices}"


def sampled(model: Model, prompts: list[list[int]], count: int) -> Sampled:
    plan = one_rank(model)
    with launch(model, plan, "numpy", dtype="float64", context=512) as session:
        tokens = tokens_of(session, prompts, count)
        ids = [[*prompt, *made[:-1]] for prompt, made in zip(prompts, tokens, strict=True)]
        right = session.run(input_ids=np.array(ids))["logits"]
    with launch(model, plan, "numpy", context=512) as session:
        single = session.run(input_ids=np.array(ids))["logits"]
    assert right.shape[0] * right.shape[1] >= POSITIONS
    logits = [row[len(prompt) - 1 :] for prompt, row in zip(prompts, right, strict=True)]
    return Sampled(tokens, logits, bound("float32", relative_error(single, right)))


def tokens_of(session: Session, prompts: list[list[int]], count: int) -> list[list[int]]:
    generation = session.generation(prompts, count, sampling=SAMPLING, ignore_eos=True)
    for _ in generation:
        pass
    return generation.tokens


@lru_cache
def small_sampled() -> Sampled:
    return sampled(small_model(), PROMPTS, 40)


@at(mesh=["tp=1", "tp=2"])
def test_a_seed_gives_the_same_tokens_everywhere(small: Session) -> None:
    small_sampled().require(tokens_of(small, PROMPTS, 40))


@at(backend=["numpy"], mesh=["tp=1"])
def test_other_seeds_and_sequences_give_other_tokens(small: Session) -> None:
    """What is compared are draws, not the likeliest tokens in disguise."""
    first, second = small_sampled().tokens
    assert first != second
    twins = small.generation([PROMPTS[0], PROMPTS[0]], 40, sampling=SAMPLING)
    for _ in twins:
        pass
    greedy = list(small.generate(PROMPTS[0], 40))
    assert twins.tokens[0] != twins.tokens[1]
    assert greedy not in twins.tokens


@at(backend=["numpy"], mesh=["tp=1"])
def test_a_wrong_distribution_is_no_possible_choice(small: Session) -> None:
    """The margin is narrow: sampling a little warmer leaves it."""
    warm = Sampling(temperature=0.9, top_k=40, top_p=0.95, seed=7)
    generation = small.generation(PROMPTS, 40, sampling=warm)
    for _ in generation:
        pass
    with pytest.raises(AssertionError, match="is none of"):
        small_sampled().require(generation.tokens)


@lru_cache
def smollm2_sampled() -> Sampled:
    return sampled(smollm2(), CAPITAL, 64)


@pytest.mark.full
@pytest.mark.parametrize("mesh", ["tp=1", "tp=2"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_smollm2_says_the_same_everywhere(backend: str, mesh: str) -> None:
    right = smollm2_sampled()
    with launch(smollm2(), smollm2_plan(mesh), backend, context=512) as session:
        right.require(tokens_of(session, CAPITAL, 64))
