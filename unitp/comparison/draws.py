"""The rule of agreement for sampled tokens: which tokens can an error of the values explain?

An error with 2-norm e changes the difference of two values by at most r = sqrt(2) e, and the log-odds of the summed probability of
any set of tokens by at most r / temperature. A token is possible if the draw is between its two cumulative bounds, or within that
distance of one of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unitp.engine.sampling import Ids, Sampling, Values, uniform


def possible(values: Values, ids: Ids, sampling: Sampling, sequence: int, step: int, error: float) -> set[int]:
    """Return all tokens that `choose` may give for values within `error` (2-norm) of these, and perhaps a few more.

    values, ids      the candidates of one sequence, [n] each
    sequence, step   the counters of the draw

    The tokens that top-k and top-p keep may differ as well: `sure` are kept in any case, `maybe` in some case.
    """
    values, gap = values.astype(np.float64), float(np.sqrt(2.0)) * error
    if sampling.temperature == 0.0:
        return set(ids[values >= values.max() - gap].tolist())
    shift = gap / sampling.temperature
    powers = np.exp((values - values.max()) / sampling.temperature)
    sure = maybe = np.ones(len(values), bool)
    if 0 < sampling.top_k < len(values):
        lower, upper = np.partition(values, [-sampling.top_k - 1, -sampling.top_k])[-sampling.top_k - 1 :][:2]
        sure, maybe = values > lower + gap, values >= upper - gap
    if sampling.top_p < 1.0:
        limit = _log_odds(sampling.top_p, 1 - sampling.top_p)
        least = _summed_above(values, powers * sure, values + gap)
        most = _summed_above(values, powers * maybe, values - gap) - powers
        kept_least = _log_odds(least, powers[maybe].sum() - least) - shift
        kept_most = _log_odds(most, powers[sure].sum() - most) + shift
        sure, maybe = sure & (kept_most < limit), maybe & (kept_least < limit)
    order = np.argsort(ids)
    few, many = (np.cumsum(np.where(kept, powers, 0.0)[order]) for kept in (sure, maybe))
    u = uniform(sampling.seed, sequence, step)
    drawn = _log_odds(u, 1 - u)
    reached = _log_odds(many, few[-1] - few) + shift
    passed = _log_odds(np.concatenate([[0.0], few[:-1]]), many[-1] - np.concatenate([[0.0], many[:-1]])) - shift
    return set(ids[order][maybe[order] & (passed <= drawn) & (drawn <= reached)].tolist())


def _summed_above(values: Values, weights: Values, bars: Values) -> npt.NDArray[np.float64]:
    """Return, for each bar, the sum of the weights of the values that exceed it."""
    order = np.argsort(values)
    tails = np.append(np.cumsum(weights[order][::-1])[::-1], 0.0)
    return np.asarray(tails[np.searchsorted(values[order], bars, side="right")])


def _log_odds(inside: Any, outside: Any) -> npt.NDArray[np.float64]:
    """Return log(inside / outside): -inf if nothing is inside, else inf if nothing is outside."""
    inside, outside = np.maximum(inside, 0.0), np.maximum(outside, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(inside > 0, np.log(inside) - np.log(outside), -np.inf)
