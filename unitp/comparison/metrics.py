"""The error between two results, and the largest error that is allowed.

    error      ||x - o||_2 / ||o||_2 against the oracle o: unsharded NumPy float64 on the same plan-free program
    meaning    float64: error <= 1e-12, sharded or not
    precision  float32: error <= 2 max(e, 2^-23), where e is the error of the unsharded NumPy float32 run
    exactness  integers and bools: equal
    decoding   greedy tokens equal, or the oracle's top-2 gap at the first difference is within the precision bound

The norm is used because single values near zero differ a lot between equally good runs. Precision is judged over at least 64
positions: on one position, the errors of equally good runs differ by more than 2x in one case of ten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

MEANING = 1e-12
PRECISION = 2.0
POSITIONS = 64


def relative_error(value: Array, oracle: Array) -> float:
    """Return `||value - oracle|| / ||oracle||`; inf if shapes differ, or if a value is not finite where the oracle is."""
    if value.shape != oracle.shape:
        return math.inf
    x, o = value.astype(np.float64), oracle.astype(np.float64)
    same = (x == o) | (np.isnan(x) & np.isnan(o))
    difference = np.where(same, 0.0, x - o)
    if not np.isfinite(difference).all():
        return math.inf
    finite = np.where(np.isfinite(o), o, 0.0)
    scale = float(np.linalg.norm(finite.ravel()))
    error = float(np.linalg.norm(difference.ravel()))
    return error / scale if scale else error


def max_abs_error(value: Array, oracle: Array) -> float:
    """Return the largest absolute difference of two arrays; inf if shapes differ."""
    if value.shape != oracle.shape:
        return math.inf
    x, o = value.astype(np.float64), oracle.astype(np.float64)
    same = (x == o) | (np.isnan(x) & np.isnan(o))
    return float(np.abs(np.where(same, 0.0, x - o)).max(initial=0.0))


def bound(dtype: str, unsharded_error: float) -> float:
    """Return the largest relative error allowed in `dtype`, if the unsharded NumPy float32 run has `unsharded_error`."""
    if dtype == "float64":
        return MEANING
    return PRECISION * max(unsharded_error, 2.0**-23)


def first_difference(tokens: Sequence[int], oracle: Sequence[int]) -> int | None:
    """Return the first position at which two sequences differ; None if they are equal."""
    for place, (a, b) in enumerate(zip(tokens, oracle, strict=False)):
        if a != b:
            return place
    return None if len(tokens) == len(oracle) else min(len(tokens), len(oracle))


def margin(logits: Array, error_bound: float) -> tuple[float, float]:
    """Return the gap between the two largest of `logits`, and the largest gap that an error within the bound can close."""
    top = np.partition(logits.astype(np.float64).ravel(), -2)[-2:]
    return float(top[1] - top[0]), error_bound * float(np.linalg.norm(logits.astype(np.float64)))
