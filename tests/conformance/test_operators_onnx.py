"""Every operator means what ONNX says: its own test vectors and its reference evaluator, on all engines.

Judged by the rules of agreement: in float64 the relative error is at most 1e-12; in float32 at most a few units in
the last place of the norm; integers, booleans and moved data are equal.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from unitp.comparison.metrics import MEANING, relative_error
from unitp.engine.engine import Engine
from unitp.graph.ops import known_ops
from unitp.plugins.discover import backends
from unitp.testing.onnx_cases import Case, cases, reference
from unitp.testing.operators import eager, engine, kit, run_operator

CASES = list(cases())
PRECISION = 2.0**-20
"""Of float32 operators against vectors that are themselves rounded: eight units of 2^-23."""
ABSENT = {"Cast", "GatherND"}
"""Operators without a vector in dtypes and forms that unitp has: see `tests/unit/engine/test_decompositions.py`."""
ROUNDED = {"Erf", "Gelu"}
"""The evaluator computes erf in float32, and GELU with float32 constants: see `tests/unit/engine/test_decompositions.py`."""
ENGINES = sorted(backends())
KITS = ("numpy", "torch", "tensorflow")
"""Backends whose primitives work on arrays one by one, so that decompositions can be tried without overrides."""


@pytest.fixture(params=[*(f"{name} engine" for name in ENGINES), *(f"{name} decompositions" for name in KITS)])
def on(request: pytest.FixtureRequest) -> Engine:
    name, _, what = request.param.partition(" ")
    with warnings.catch_warnings(action="ignore"):  # of frameworks, while they are imported
        return engine(name) if what == "engine" else eager(kit(name), overridden=False)


def agree(found: np.ndarray, wanted: np.ndarray, bound: float) -> bool:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    if wanted.dtype.kind != "f" or np.array_equal(found, wanted):
        return bool(np.array_equal(found, wanted))
    finite = np.isfinite(wanted)
    same = np.array_equal(found[~finite], wanted[~finite], equal_nan=True)
    return same and relative_error(found[finite], wanted[finite]) <= bound


def test_there_are_vectors_for_almost_all_operators():
    assert len(CASES) >= 250
    assert known_ops() - {case.op for case in CASES} == ABSENT


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vectors_of_onnx(case: Case, on: Engine):
    found = run_operator(case.op, case.attrs, case.inputs, on, case.name)
    for mine, wanted in zip(found, case.outputs, strict=True):
        assert wanted is not None
        assert agree(mine, wanted, PRECISION), (mine, wanted)


@pytest.mark.parametrize("case", [case for case in CASES if case.floating and case.op not in ROUNDED], ids=str)
def test_float64_equals_the_reference_evaluator(case: Case, on: Engine):
    inputs = [x.astype(np.float64) if x is not None and x.dtype == np.float32 else x for x in case.inputs]
    attrs = {**case.attrs, "to": "float64"} if case.attrs.get("to") == "float32" else case.attrs
    attrs = {**attrs, "scale": 0.25} if case.op == "Attention" else attrs  # its root is taken in float32
    with warnings.catch_warnings(action="ignore"):
        wanted = reference(case.op, attrs, inputs, len(case.outputs))
    found = run_operator(case.op, attrs, inputs, on, f"{case.name} in float64")
    for mine, theirs in zip(found, wanted, strict=True):
        assert agree(mine, np.asarray(theirs), MEANING), (mine, theirs)
