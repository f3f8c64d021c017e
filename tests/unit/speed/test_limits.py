"""Which weights are read, and what the machine's limit beside a decode is."""

from __future__ import annotations

import pytest
from speed.figures import Key
from speed.limits import KERNEL, MEASURE, faster, gain, matrices
from speed.serve_limit import allocated, ways
from speed.subjects import Subject

from unitp.testing.models import TINY, tiny


def probe(one: float, two: float, other: float = 0.0) -> dict[Key, float]:
    return {
        Key(MEASURE, Subject(KERNEL, 1)): one,
        Key(MEASURE, Subject(KERNEL, 2)): two,
        Key(MEASURE, Subject("dot", 2)): other,
    }


def test_the_better_of_two_probes_counts_by_whatever_way():
    assert faster(probe(10.0, 18.0, 20.0), probe(11.0, 19.0, 15.0), processes=2) == 20.0
    assert faster(probe(10.0, 18.0, 20.0), probe(11.0, 19.0, 15.0), processes=1) == 11.0


def test_the_gain_of_the_kernel_is_over_both_probes():
    assert gain(probe(10.0, 16.0), probe(12.0, 17.0)) == pytest.approx(33 / 22)
    assert gain({}, {}) is None


def test_every_matrix_is_read_once_and_a_tied_embedding_is_one():
    found = matrices(tiny().graph)
    assert found.count((TINY.vocab, TINY.width)) == 1
    assert len(found) == 1 + 7 * TINY.layers


def test_parts_have_all_rows_of_all_weights():
    whole, halves = allocated("5,4,2;6,8,1", 0, 1), [allocated("5,4,2;6,8,1", part, 2) for part in (0, 1)]
    assert [w.shape for w in whole] == [(5, 4), (5, 4), (6, 8)]
    assert [(a.shape[0] + b.shape[0], a.shape[1]) for a, b in zip(*halves, strict=True)] == [w.shape for w in whole]


def test_every_way_reads():
    found = ways(allocated("8,4,2", 0, 1))
    assert {"dot", "add"} <= {*found}
    for read in found.values():
        read()
