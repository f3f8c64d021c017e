"""Weights of 16 bits: the graph whose parameters are stored in bfloat16 or float16, and whose operators compute as before.

    stored        each float32 parameter of two dims is stored in 16 bits if all that read it can widen it
                  (`unitp.graph.ops.records.Operator.stored`: the right operand of MatMul, the table of Gather), directly or
                  through transpositions
    rounded       x rounded to the nearest number of 16 bits, ties to the even one (IEEE 754)
    widened       the numbers that 16 bits stand for; exact in float32

An operator that reads a stored parameter gives what it gives for the same numbers in float32. The type of the parameter alone
says how it is stored, so a plan, its prices and its memory follow from the graph, and so does its hash. Norms, biases and tables
of angles stay in float32: they are small, and their errors are not.

An array of stored numbers has their bits, as uint16, because NumPy has no bfloat16.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.errors import InputError, ModelError, did_you_mean
from unitp.graph.graph import Graph
from unitp.graph.ops import operator
from unitp.graph.source import RangeSource, RopeSource
from unitp.graph.values import STORED, Node, Parameter, TensorType

Array = npt.NDArray[Any]
Bits = npt.NDArray[np.uint16]

WEIGHTS = ("float32", *STORED)
"""What weights may be stored in."""


def stored(graph: Graph, dtype: str) -> Graph:
    """Return the graph with its weights stored in `dtype`. For float32 it is the graph itself.

    Raises InputError for another dtype than those of `WEIGHTS`.
    """
    if dtype not in WEIGHTS:
        raise InputError(f'weights cannot be stored in "{dtype}"', hint=did_you_mean(dtype, WEIGHTS))
    kept = _not_widened(graph)

    def narrow(parameter: Parameter) -> Parameter:
        if parameter.name in kept or not _may_be_stored(parameter):
            return parameter
        return msgspec.structs.replace(parameter, type=TensorType(dtype, parameter.type.shape))

    if dtype == "float32":
        return graph
    return msgspec.structs.replace(graph, parameters=tuple(map(narrow, graph.parameters)))


def as_planned(graph: Graph, planned: str) -> Graph:
    """Return the graph with its weights stored as in the graph whose hash is `planned`; the graph itself if none has it."""
    if graph.hash == planned:
        return graph
    return next((made for dtype in STORED if (made := stored(graph, dtype)).hash == planned), graph)


def stored_in(graph: Graph) -> tuple[str, ...]:
    """Return the dtypes of 16 bits in which parameters of a graph are stored."""
    found = {parameter.type.dtype for parameter in graph.parameters}
    return tuple(dtype for dtype in STORED if dtype in found)


def widening(name: str, wide: str) -> Node:
    """Return the node that says in ONNX what the readers of a stored value do: `wide` has its numbers in float32."""
    return Node("Cast", (name,), (wide,), {"to": "float32"})


def _may_be_stored(parameter: Parameter) -> bool:
    type_ = parameter.type
    return (
        type_.dtype == "float32"
        and len(type_.shape) == 2
        and not isinstance(parameter.source, RopeSource | RangeSource)
    )


def _not_widened(graph: Graph) -> set[str]:
    """Return the values that are read, they or a permutation of them, by something that does not widen them."""
    found = {*graph.outputs, *(state.output for state in graph.states)}
    for node in reversed(graph.nodes):
        known = operator(node.op)
        if known.permutation is not None and node.name not in found:
            continue
        found |= {name for place, name in enumerate(node.inputs) if name and place != known.stored}
    return found


def rounded(x: npt.NDArray[np.float32], dtype: str) -> Bits:
    """Return the bits of float32 numbers rounded to a dtype of 16 bits.

    Raises ModelError for a finite number that is too large for float16.
    """
    if dtype == "float16":
        with np.errstate(over="ignore"):
            half = x.astype(np.float16)
        if not np.array_equal(np.isfinite(half), np.isfinite(x)):
            most = np.abs(x[np.isfinite(x)]).max()
            raise ModelError(
                f"a weight of {most:.3g} cannot be stored in float16, which ends at 65504",
                hint="Store the weights in bfloat16.",
            )
        return half.view(np.uint16)
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    nan = np.isnan(x)
    if nan.any():
        nearest[nan] = (bits[nan] >> 16).astype(np.uint16) | np.uint16(0x40)
    return nearest


def widened(bits: Bits, dtype: str, out: Array | None = None) -> Array:
    """Return the numbers that 16 bits stand for, in float32: in `out` if it is given, which is a C-contiguous array of their shape."""
    made = np.empty(bits.shape, np.float32) if out is None else out
    if dtype == "float16":
        _widen_float16(bits, made)
    else:
        np.left_shift(bits, 16, out=made.view(np.uint32), dtype=np.uint32)
    return made


def _widen_float16(bits: Bits, out: Array) -> None:
    """Write float16 numbers to `out`, about twice as fast as NumPy's own conversion.

    Exponent and fraction are shifted to their places in float32, where the exponent is 112 too small; so it is for subnormal
    numbers too. Infinities and NaN, which have an exponent of their own, are left to NumPy.
    """
    words = out.view(np.int32)
    np.left_shift(bits.view(np.int16), 13, out=words, dtype=np.int32)
    np.bitwise_and(words, np.int32(-0x70000001), out=words)  # the sign is in the four upper bits; it stays in the first
    np.multiply(out, np.float32(2.0**112), out=out)
    special = (bits & np.uint16(0x7C00)) == 0x7C00
    if special.any():
        np.copyto(out, bits.view(np.float16), where=special)
