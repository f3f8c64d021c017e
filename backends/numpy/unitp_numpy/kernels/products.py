"""The products of few rows with a weight, which is read once:

    y[i + q h] = sum over j of W[i + q h, j] x[j]        q = 0 .. 3, h = n // 4

For one row of x, four rows of W that are n / 4 apart are read at once, which is fastest for the memory of one core. For four
rows of x, a tile of 2 rows of W and 4 of x stays in registers. The compiler may sum in any order (`reassoc`, `contract`), but
it must not assume that there are no NaN or infinities. Weights of 16 bits are widened in registers, so that half as many bytes
are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from unitp_numpy.kernels.widening import widening

FAST = {"reassoc", "contract", "nsz", "arcp"}
INLINE: dict[str, Any] = {"fastmath": FAST, "error_model": "numpy", "boundscheck": False}


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """Return an address (int64) as a pointer."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), build


def products(dtype: Any, stored: str = "") -> Any:
    """Return `product(m, n, k, x_at, w_at, y_at)` of a float type, with weights of that type or of 16 bits (`stored`)."""
    zero = dtype(0)
    kept, wide = (np.uint16 if stored else dtype), widening(stored)

    @njit(**INLINE)
    def one_row(w: Any, x: Any, y: Any) -> None:
        n, k = w.shape
        h = n // 4
        for i in range(h):
            a = zero
            b = zero
            c = zero
            d = zero
            for j in range(k):
                v = x[j]
                a += wide(w[i, j]) * v
                b += wide(w[i + h, j]) * v
                c += wide(w[i + 2 * h, j]) * v
                d += wide(w[i + 3 * h, j]) * v
            y[i] = a
            y[i + h] = b
            y[i + 2 * h] = c
            y[i + 3 * h] = d
        for i in range(4 * h, n):
            s = zero
            for j in range(k):
                s += wide(w[i, j]) * x[j]
            y[i] = s

    @njit(**INLINE)
    def two_rows(w: Any, x: Any, y: Any) -> None:
        n, k = w.shape
        h = n // 4
        for i in range(h):
            a0 = zero
            b0 = zero
            c0 = zero
            d0 = zero
            a1 = zero
            b1 = zero
            c1 = zero
            d1 = zero
            for j in range(k):
                u = x[0, j]
                v = x[1, j]
                a0 += wide(w[i, j]) * u
                a1 += wide(w[i, j]) * v
                b0 += wide(w[i + h, j]) * u
                b1 += wide(w[i + h, j]) * v
                c0 += wide(w[i + 2 * h, j]) * u
                c1 += wide(w[i + 2 * h, j]) * v
                d0 += wide(w[i + 3 * h, j]) * u
                d1 += wide(w[i + 3 * h, j]) * v
            y[0, i] = a0
            y[1, i] = a1
            y[0, i + h] = b0
            y[1, i + h] = b1
            y[0, i + 2 * h] = c0
            y[1, i + 2 * h] = c1
            y[0, i + 3 * h] = d0
            y[1, i + 3 * h] = d1
        for i in range(4 * h, n):
            for r in range(2):
                s = zero
                for j in range(k):
                    s += wide(w[i, j]) * x[r, j]
                y[r, i] = s

    @njit(**INLINE)
    def three_rows(w: Any, x: Any, y: Any) -> None:
        n, k = w.shape
        h = n // 2
        for i in range(h):
            a0 = zero
            a1 = zero
            a2 = zero
            b0 = zero
            b1 = zero
            b2 = zero
            for j in range(k):
                u = wide(w[i, j])
                v = wide(w[i + h, j])
                a0 += u * x[0, j]
                b0 += v * x[0, j]
                a1 += u * x[1, j]
                b1 += v * x[1, j]
                a2 += u * x[2, j]
                b2 += v * x[2, j]
            y[0, i] = a0
            y[1, i] = a1
            y[2, i] = a2
            y[0, i + h] = b0
            y[1, i + h] = b1
            y[2, i + h] = b2
        for i in range(2 * h, n):
            for r in range(3):
                s = zero
                for j in range(k):
                    s += wide(w[i, j]) * x[r, j]
                y[r, i] = s

    @njit(**INLINE)
    def product(m: int, n: int, k: int, x_at: int, w_at: int, y_at: int) -> None:
        """Write y [m, n] = x [m, k] times the transpose of w [n, k]."""
        w = carray(pointer(w_at), (n, k), kept)
        x = carray(pointer(x_at), (m, k), dtype)
        y = carray(pointer(y_at), (m, n), dtype)
        first = m % 4
        if first == 1:
            one_row(w, x[0], y[0])
        elif first == 2:
            two_rows(w, x, y)
        elif first == 3:
            three_rows(w, x, y)
        if m < 4:
            return
        half = n // 2
        for i in range(half):
            for r in range(first, m, 4):
                a0 = zero
                a1 = zero
                a2 = zero
                a3 = zero
                b0 = zero
                b1 = zero
                b2 = zero
                b3 = zero
                for j in range(k):
                    u = wide(w[i, j])
                    v = wide(w[i + half, j])
                    a0 += u * x[r, j]
                    b0 += v * x[r, j]
                    a1 += u * x[r + 1, j]
                    b1 += v * x[r + 1, j]
                    a2 += u * x[r + 2, j]
                    b2 += v * x[r + 2, j]
                    a3 += u * x[r + 3, j]
                    b3 += v * x[r + 3, j]
                y[r, i] = a0
                y[r + 1, i] = a1
                y[r + 2, i] = a2
                y[r + 3, i] = a3
                y[r, i + half] = b0
                y[r + 1, i + half] = b1
                y[r + 2, i + half] = b2
                y[r + 3, i + half] = b3
        for i in range(2 * half, n):
            for r in range(first, m):
                s = zero
                for j in range(k):
                    s += wide(w[i, j]) * x[r, j]
                y[r, i] = s

    return product
