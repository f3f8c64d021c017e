"""Products with weights stored in 16 bits, in NumPy: block by block, each widened into scratch that stays in the cache.

    y[:, a:b] = x widened(w[a:b])^T        for blocks a:b of the rows of w [n, k]

Memory is read once, and half as much of it as for float32. The kernels of few rows (`unitp_numpy.kernels.products`) widen in
registers; this is for many rows, where BLAS makes better use of a block, and where there are no kernels.
"""

from __future__ import annotations

import numpy as np

from unitp.engine.widening import Array, block_rows, widened


def product(x: Array, w: Array, dtype: str, out: Array) -> None:
    """Write x [m, k] times the transpose of w [n, k], the bits of numbers of `dtype`, to `out` [m, n] in float32."""
    n, k = w.shape
    step = min(n, block_rows(k))
    scratch = np.empty((step, k), np.float32)
    for start in range(0, n, step):
        stop = min(start + step, n)
        block = widened(w[start:stop], dtype, scratch[: stop - start])
        np.matmul(x, block.T, out=out[:, start:stop])
