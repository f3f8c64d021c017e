"""The numbers that 16 bits stand for, in the registers of a kernel: `widening(stored)` is a function of them.

bfloat16   the upper half of a float32: a shift
float16    one instruction, where the processor has it (F16C on x86; every ARM); else by the exponents,
           2^112 times the float32 with its exponent and fraction, which is exact for subnormal numbers too
""         numbers of the type that is computed in, as they are
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic


@intrinsic
def as_it_is(typing: Any, x: Any) -> Any:
    """Return x."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arguments[0]

    return x(x), build


@intrinsic
def from_bfloat16(typing: Any, bits: Any) -> Any:
    """Return the float32 whose upper half is `bits`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(word, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    return types.float32(types.uint16), build


@intrinsic
def from_float16(typing: Any, bits: Any) -> Any:
    """Return a float16 as float32."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), build


@intrinsic
def single(typing: Any, bits: Any) -> Any:
    """Return the float32 that has these 32 bits."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build


_SCALE = np.float32(2.0**112)


@njit(error_model="numpy")
def by_exponents(bits: Any) -> Any:
    """Return a float16 as float32, by operations on integers and one product."""
    word = np.int32(bits)
    rest = (word & np.int32(0x7FFF)) << np.int32(13)
    special = single(rest | np.int32(0x7F800000))
    x = special if rest >= np.int32(0x0F800000) else single(rest) * _SCALE
    return -x if word & np.int32(0x8000) else x


def widening(stored: str) -> Any:
    """Return the function that widens numbers of a dtype of 16 bits; for "" one that gives back what it gets."""
    if stored == "float16":
        features = binding.get_host_cpu_features()
        arm = binding.get_process_triple().startswith(("aarch64", "arm64"))
        return from_float16 if arm or features.get("f16c") else by_exponents
    return from_bfloat16 if stored == "bfloat16" else as_it_is
