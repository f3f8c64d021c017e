"""Where parameters are kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from unitp.engine.arena import BLOCK, LINE, SMALL, Arena


def test_copies_are_equal_apart_and_aligned():
    arena, rng = Arena(), np.random.default_rng(1)
    arrays: list[Any] = [
        rng.normal(size=(n, 65)).astype(dtype) for n in (300, 301, 999) for dtype in ("float32", "float64")
    ]
    arrays += [arrays[0].T, np.arange(20000), rng.random(SMALL) < 0.5, np.zeros(BLOCK // 8 + 1), np.float32(3.0)]
    copies = [arena.copy(array) for array in arrays]
    for array, copy in zip(arrays, copies, strict=True):
        assert copy.dtype == array.dtype
        assert np.array_equal(copy, array)
        assert copy.flags.c_contiguous
        assert not np.shares_memory(copy, array)
        assert array.nbytes < SMALL or copy.ctypes.data % LINE == 0
    for copy in copies:
        copy[...] = 0
    assert np.array_equal(arrays[0], arrays[6].T)
    assert arrays[1].any()
    assert not any(np.shares_memory(a, b) for i, a in enumerate(copies) for b in copies[:i])
