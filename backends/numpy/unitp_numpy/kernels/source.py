"""The kernels of few rows, as numba compiles them: one function `run(table, rows)` that carries out rows of a table.

A row of the table is an operator and its arguments, each 64 bits: addresses of arrays, sizes, and numbers as the bits of a
float64 (`unitp_numpy.kernels.table` says which). Each kernel goes over its operands once. Products are in a module of
their own; the constant `FAST` there says what the compiler may assume of numbers.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from unitp_numpy.kernels.products import INLINE, pointer, products
from unitp_numpy.kernels.table import WIDTH, Op
from unitp_numpy.kernels.widening import single as from_bits
from unitp_numpy.kernels.widening import widening


@intrinsic
def real(typing: Any, bits: Any) -> Any:
    """Return the float64 that has these 64 bits."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), build


def _exponentials() -> dict[Any, Any]:
    """Return exp for each float type, of numbers that are not above 88."""
    log2e, high, low = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
    a, b, c = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
    d, e, f = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
    shift, one, least = np.float32(12582912.0), np.float32(1), np.float32(-87)

    @njit(error_model="numpy", fastmath={"contract"})
    def exp32(x: Any) -> Any:
        """Return exp in float32 within about 1 ulp (Cephes): 2^n times a polynomial of the remainder. Below -87 it is exp(-87)."""
        x = least if x < least else x
        n = x * log2e + shift
        n -= shift
        r = x - n * high - n * low
        p = ((((a * r + b) * r + c) * r + d) * r + e) * r + f
        return (p * r * r + r + one) * from_bits((np.int32(n) + np.int32(127)) << np.int32(23))

    @njit(error_model="numpy")
    def exp64(x: Any) -> Any:
        return exp(x)

    return {types.float32: exp32, types.float64: exp64}


def kernels(dtype: Any) -> dict[str, Any]:
    """Return the kernels of a float type."""
    zero, one = dtype(0), dtype(1)
    kind = {np.float32: types.float32, np.float64: types.float64}[dtype]
    power = _exponentials()[kind]

    @njit(**INLINE)
    def root_mean_square(m: int, d: int, x_at: int, scale_at: int, y_at: int, epsilon: float) -> None:
        x = carray(pointer(x_at), (m, d), dtype)
        scale = carray(pointer(scale_at), (d,), dtype)
        y = carray(pointer(y_at), (m, d), dtype)
        for i in range(m):
            s = zero
            for j in range(d):
                s += x[i, j] * x[i, j]
            f = one / dtype(sqrt(s / dtype(d) + dtype(epsilon)))
            for j in range(d):
                y[i, j] = x[i, j] * f * scale[j]

    @njit(**INLINE)
    def rotate(b: int, h: int, s: int, d: int, half: int, pairs: int, batch: int, head: int, row: int,
               x_at: int, c_at: int, s_at: int, p_at: int, y_at: int) -> None:  # fmt: skip
        """Rotate by the angles of each position. `pairs`: neighbours are pairs, else elements that are half a head apart.

        `batch`, `head` and `row` are the strides of x, in elements.
        """
        x = carray(pointer(x_at), ((b - 1) * batch + (h - 1) * head + (s - 1) * row + d,), dtype)
        y = carray(pointer(y_at), (b, h, s, d), dtype)
        at = carray(pointer(p_at), (b, s), np.int64)
        last = 0
        for i in range(b):
            for t in range(s):
                last = max(last, at[i, t])
        cos = carray(pointer(c_at), (last + 1, half), dtype)
        sin = carray(pointer(s_at), (last + 1, half), dtype)
        for i in range(b):
            for g in range(h):
                for t in range(s):
                    p = at[i, t]
                    first = i * batch + g * head + t * row
                    if pairs:
                        for j in range(half):
                            u = x[first + 2 * j]
                            v = x[first + 2 * j + 1]
                            y[i, g, t, 2 * j] = u * cos[p, j] - v * sin[p, j]
                            y[i, g, t, 2 * j + 1] = v * cos[p, j] + u * sin[p, j]
                    else:
                        for j in range(half):
                            u = x[first + j]
                            v = x[first + half + j]
                            y[i, g, t, j] = u * cos[p, j] - v * sin[p, j]
                            y[i, g, t, j + half] = v * cos[p, j] + u * sin[p, j]
                    for j in range(2 * half, d):
                        y[i, g, t, j] = x[first + j]

    @njit(**INLINE)
    def update(b: int, h: int, s: int, d: int, room: int, batch: int, head: int, row: int,
               rows_at: int, starts_at: int, state_at: int) -> None:  # fmt: skip
        """Write rows [b, h, s, d] with these strides into a state [b, h, room, d] from row starts[b] on."""
        rows = carray(pointer(rows_at), ((b - 1) * batch + (h - 1) * head + (s - 1) * row + d,), dtype)
        state = carray(pointer(state_at), (b, h, room, d), dtype)
        starts = carray(pointer(starts_at), (b,), np.int64)
        for i in range(b):
            for g in range(h):
                for t in range(s):
                    first = i * batch + g * head + t * row
                    for j in range(d):
                        state[i, g, starts[i] + t, j] = rows[first + j]

    @njit(**INLINE)
    def attend(b: int, h: int, s: int, d: int, g: int, room: int, keys: int, e: int, scale: float, causal: int,
               q_at: int, k_at: int, v_at: int, heads_at: int, valid_at: int, scores_at: int, y_at: int) -> None:  # fmt: skip
        """Compute attention of q [b, h, s, d] over the valid rows of k [b, g, room, d] and v [b, g, room, e]."""
        q = carray(pointer(q_at), (b, h, s, d), dtype)
        k = carray(pointer(k_at), (b, g, room, d), dtype)
        v = carray(pointer(v_at), (b, g, room, e), dtype)
        y = carray(pointer(y_at), (b, h, s, e), dtype)
        heads = carray(pointer(heads_at), (h,), np.int64)
        valid = carray(pointer(valid_at), (b,), np.int64)
        scores = carray(pointer(scores_at), (keys,), dtype)
        f = dtype(scale)
        for i in range(b):
            for n in range(h):
                o = heads[n]
                for t in range(s):
                    last = valid[i] - (s - 1 - t) if causal else valid[i]
                    if last <= 0:
                        for j in range(e):
                            y[i, n, t, j] = zero
                        continue
                    most = dtype(-np.inf)
                    for r in range(last):
                        z = zero
                        for j in range(d):
                            z += q[i, n, t, j] * k[i, o, r, j]
                        z *= f
                        scores[r] = z
                        if not z <= most:
                            most = z
                    for r in range(last):
                        scores[r] = power(scores[r] - most)
                    total = zero
                    for r in range(last):
                        total += scores[r]
                    for j in range(e):
                        y[i, n, t, j] = zero
                    for r in range(last):
                        z = scores[r]
                        for j in range(e):
                            y[i, n, t, j] += z * v[i, o, r, j]
                    z = one / total
                    for j in range(e):
                        y[i, n, t, j] *= z

    @njit(**INLINE)
    def binary(op: int, n: int, a_at: int, b_at: int, y_at: int) -> None:
        a = carray(pointer(a_at), (n,), dtype)
        b = carray(pointer(b_at), (n,), dtype)
        y = carray(pointer(y_at), (n,), dtype)
        if op == Op.ADD:
            for i in range(n):
                y[i] = a[i] + b[i]
        else:
            for i in range(n):
                y[i] = a[i] * b[i]

    @njit(**INLINE)
    def swish(n: int, alpha: float, x_at: int, y_at: int) -> None:
        """Compute x / (1 + exp(-alpha x)), with exponentials of at most 1 only."""
        x = carray(pointer(x_at), (n,), dtype)
        y = carray(pointer(y_at), (n,), dtype)
        f = dtype(alpha)
        for i in range(n):
            z = f * x[i]
            small = -z if z > zero else z
            p = power(small)
            y[i] = x[i] / (one + p) if z > zero else x[i] * p / (one + p)

    @njit(**INLINE)
    def move(a: int, b: int, c: int, d: int, s0: int, s1: int, s2: int, x_at: int, y_at: int) -> None:
        """Write x to y [a, b, c, d]. The first three dims of x have these strides, in elements."""
        y = carray(pointer(y_at), (a, b, c, d), dtype)
        x = carray(pointer(x_at), ((a - 1) * s0 + (b - 1) * s1 + (c - 1) * s2 + d,), dtype)
        for i in range(a):
            for j in range(b):
                for k in range(c):
                    first = i * s0 + j * s1 + k * s2
                    for m in range(d):
                        y[i, j, k, m] = x[first + m]

    return {
        "product": products(dtype),
        "norm": root_mean_square,
        "rotate": rotate,
        "update": update,
        "attend": attend,
        "binary": binary,
        "swish": swish,
        "move": move,
        "look_up": look_ups(dtype),
    }


def look_ups(dtype: Any, stored: str = "") -> Any:
    """Return `look_up` of a float type, in a table of that type or of 16 bits (`stored`)."""
    zero = dtype(0)
    kept, wide = (np.uint16 if stored else dtype), widening(stored)

    @njit(**INLINE)
    def look_up(n: int, d: int, first: int, stop: int, whole: int, ids_at: int, data_at: int, y_at: int) -> None:
        """Look up rows of data [stop - first, d] by their numbers in the whole tensor; rows of other ranks are zeros."""
        ids = carray(pointer(ids_at), (n,), np.int64)
        data = carray(pointer(data_at), (stop - first, d), kept)
        y = carray(pointer(y_at), (n, d), dtype)
        for i in range(n):
            at = (ids[i] if ids[i] >= 0 else ids[i] + whole) - first
            if 0 <= at < stop - first:
                for j in range(d):
                    y[i, j] = wide(data[at, j])
            else:
                for j in range(d):
                    y[i, j] = zero

    return look_up


def machine(dtype: Any) -> Any:
    """Return `run(table, rows)` of a float type, as a C function `void run(int64 address, int64 rows)`."""
    found = kernels(dtype)
    product, norm, rotate, update = found["product"], found["norm"], found["rotate"], found["update"]
    attend, binary, swish, move, look_up = (found[n] for n in ("attend", "binary", "swish", "move", "look_up"))
    single = dtype is np.float32  # in float64 weights are widened when they are read
    product_b, look_up_b = (products(dtype, "bfloat16"), look_ups(dtype, "bfloat16")) if single else (product, look_up)
    product_h, look_up_h = (products(dtype, "float16"), look_ups(dtype, "float16")) if single else (product, look_up)

    def run(address: int, rows: int) -> None:
        t = carray(pointer(address), (rows, WIDTH), np.int64)
        for i in range(rows):
            op = t[i, 0]
            if op == Op.PRODUCT:
                product(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], t[i, 6])
            elif op == Op.NORM:
                norm(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], real(t[i, 6]))
            elif op == Op.ROTATE:
                rotate(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], t[i, 6], t[i, 7], t[i, 8], t[i, 9],
                       t[i, 10], t[i, 11], t[i, 12], t[i, 13], t[i, 14])  # fmt: skip
            elif op == Op.UPDATE:
                update(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], t[i, 6], t[i, 7], t[i, 8],
                       t[i, 9], t[i, 10], t[i, 11])  # fmt: skip
            elif op == Op.ATTEND:
                attend(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], t[i, 6], t[i, 7], t[i, 8], real(t[i, 9]), t[i, 10],
                       t[i, 11], t[i, 12], t[i, 13], t[i, 14], t[i, 15], t[i, 16], t[i, 17])  # fmt: skip
            elif op == Op.SWISH:
                swish(t[i, 1], real(t[i, 2]), t[i, 3], t[i, 4])
            elif op == Op.MOVE:
                move(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], t[i, 6], t[i, 7], t[i, 8], t[i, 9])
            elif op == Op.LOOK_UP:
                look_up(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], t[i, 6], t[i, 7], t[i, 8])
            elif op == Op.PRODUCT_BFLOAT16:
                product_b(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], t[i, 6])
            elif op == Op.PRODUCT_FLOAT16:
                product_h(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], t[i, 6])
            elif op == Op.LOOK_UP_BFLOAT16:
                look_up_b(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], t[i, 6], t[i, 7], t[i, 8])
            elif op == Op.LOOK_UP_FLOAT16:
                look_up_h(t[i, 1], t[i, 2], t[i, 3], t[i, 4], t[i, 5], t[i, 6], t[i, 7], t[i, 8])
            else:
                binary(op, t[i, 1], t[i, 2], t[i, 3], t[i, 4])

    return cfunc(types.void(types.int64, types.int64), error_model="numpy")(run)
