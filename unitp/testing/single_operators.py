"""Every operator alone, in the smallest graphs that show what its rule can get wrong: odd sizes, ties, groups, broadcasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph

Make = Callable[[], Graph]


def _unary(op: str, dtype: str = "float32", **attrs: Any) -> Make:
    def make() -> Graph:
        b = Builder(op)
        x = b.input("x", dtype, (3, 5, 7))
        return b.graph(b.op(op, b.op("Exp", x) if op in ("Log", "Sqrt") else x, **attrs))

    return make


def _binary(op: str, dtype: str = "float32") -> Make:
    def make() -> Graph:
        b = Builder(op)
        x, y = b.input("x", dtype, (3, 5, 7)), b.input("y", dtype, (5, 1))
        return b.graph(b.op(op, b.op("Exp", x) if op == "Pow" else x, y))

    return make


def _graph(build: Callable[[Builder], object]) -> Make:
    def make() -> Graph:
        b = Builder("single")
        found = build(b)
        return b.graph(*(found if isinstance(found, tuple) else (str(found),)))

    return make


def _x(b: Builder, *shape: int, dtype: str = "float32", name: str = "x") -> str:
    return b.input(name, dtype, shape)


def _attention(b: Builder) -> object:
    q, k, v = _x(b, 2, 9, 4, 6), _x(b, 2, 3, 5, 6, name="k"), _x(b, 2, 3, 5, 8, name="v")
    return b.Attention(q, k, v, "", "", "", b.input("n", "int64", (2,)), is_causal=1)


def _masked_attention(b: Builder) -> object:
    q, k, v = _x(b, 2, 6, 4, 6), _x(b, 2, 3, 4, 6, name="k"), _x(b, 2, 3, 4, 6, name="v")
    return b.Attention(q, k, v, _x(b, 6, 4, 4, name="mask"), is_causal=1, softcap=3.0)


def _rotary(b: Builder) -> object:
    tables = b.random("cos", (9, 3), seed=1), b.random("sin", (9, 3), seed=2)
    return b.RotaryEmbedding(_x(b, 2, 5, 4, 6), *tables, b.input("at", "int64", (2, 4)), interleaved=1)


def _scatter(b: Builder) -> object:
    past = b.state("past", "float32", (3, 5, 7, 4))
    present = b.TensorScatter(past, _x(b, 3, 5, 2, 4), b.input("at", "int64", (3,)), axis=2)
    b.keep(past, present)
    return b.Slice(present, axes=(2,), starts=(0,), ends=(5,))


def _ties(b: Builder) -> object:
    """Few distinct values, so that only the order of ties tells right from wrong."""
    return b.TopK(b.Cast(b.input("x", "int64", (4, 11)), to="float32"), k=5)


SINGLE: dict[str, Make] = {
    **{
        op: _unary(op)
        for op in ("Neg", "Abs", "Exp", "Log", "Sqrt", "Tanh", "Sigmoid", "Erf", "Relu", "Identity", "Gelu")
    },
    "Swish": _unary("Swish", alpha=1.5),
    "Gelu, tanh": _unary("Gelu", approximate="tanh"),
    "Not": _unary("Not", "bool"),
    "Cast": _unary("Cast", "int64", to="float32"),
    **{op: _binary(op) for op in ("Add", "Sub", "Mul", "Max", "Min", "Pow", "Less")},
    "Div": _graph(lambda b: b.Div(_x(b, 3, 5, 7), b.Exp(_x(b, 7, name="y")))),
    "Equal": _binary("Equal", "int64"),
    "And": _binary("And", "bool"),
    "Where": _graph(lambda b: b.Where(b.input("c", "bool", (5, 7)), _x(b, 3, 5, 7), _x(b, 1, 7, name="y"))),
    "MatMul": _graph(lambda b: b.MatMul(_x(b, 3, 5, 7), b.random("w", (7, 9), seed=1))),
    "MatMul, batched": _graph(lambda b: b.MatMul(_x(b, 2, 1, 5, 7), _x(b, 3, 7, 4, name="y"))),
    "Gemm": _graph(lambda b: b.Gemm(_x(b, 5, 7), b.random("w", (9, 7), seed=1), b.random("c", (9,), seed=2), transB=1)),
    "Gemm, plain": _graph(lambda b: b.Gemm(_x(b, 7, 5), b.random("w", (7, 9), seed=1), transA=1, alpha=0.5)),
    "Gemm, bias as a column": _graph(
        lambda b: b.Gemm(_x(b, 5, 7), b.random("w", (7, 9), seed=1), b.random("c", (5, 1), seed=2), beta=2.0)
    ),
    "Einsum, experts": _graph(
        lambda b: b.Einsum(_x(b, 2, 3, 5), b.random("w", (4, 7, 5), seed=1), equation="bsd,efd->bsef")
    ),
    "Einsum, sum over experts": _graph(
        lambda b: b.Einsum(_x(b, 2, 3, 4, 7), b.random("w", (4, 7, 5), seed=1), equation="bsef,efd->bsd")
    ),
    "Einsum, batch": _graph(lambda b: b.Einsum(_x(b, 5, 3, 4), _x(b, 4, 5, 6, name="y"), equation="bij,jbk->kib")),
    "Softmax": _graph(lambda b: b.Softmax(_x(b, 3, 11))),
    "Softmax, dim 1 of 3": _graph(lambda b: b.Softmax(_x(b, 3, 5, 7), axis=1)),
    "LogSoftmax": _graph(lambda b: b.LogSoftmax(_x(b, 3, 11))),
    "RMSNormalization": _graph(lambda b: b.RMSNormalization(_x(b, 3, 5, 11), b.random("g", (11,), seed=1))),
    "LayerNormalization": _graph(
        lambda b: b.LayerNormalization(_x(b, 3, 5, 11), b.random("g", (11,), seed=1), b.random("c", (11,), seed=2))
    ),
    "Attention": _graph(_attention),
    "Attention, masked": _graph(_masked_attention),
    "RotaryEmbedding": _graph(_rotary),
    "TensorScatter": _graph(_scatter),
    "Gather": _graph(lambda b: b.Gather(b.random("t", (13, 7), seed=1), b.input("i", "int64", (3, 5)), axis=0)),
    "Gather, dim 1": _graph(lambda b: b.Gather(_x(b, 5, 7, 3), b.input("i", "int64", (4,)), axis=1)),
    "GatherND": _graph(
        lambda b: b.GatherND(_x(b, 3, 5, 7), b.Unsqueeze(b.input("i", "int64", (3, 2)), axes=(2,)), batch_dims=1)
    ),
    "GatherElements": _graph(lambda b: b.GatherElements(_x(b, 4, 7), b.input("i", "int64", (4, 9)), axis=1)),
    "TopK": _graph(lambda b: b.TopK(_x(b, 3, 5, 11), k=4)),
    "TopK, all": _graph(lambda b: b.TopK(_x(b, 5, 7), k=5, axis=0)),
    "TopK, ties": _graph(_ties),
    "ArgMax": _graph(lambda b: b.ArgMax(_x(b, 3, 11), axis=-1, keepdims=0)),
    "ArgMax, dim 0": _graph(lambda b: b.ArgMax(_x(b, 7, 5))),
    **{op: _unary(op, axes=(1,), keepdims=1) for op in ("ReduceSum", "ReduceMax", "ReduceMean")},
    "ReduceSum, two dims": _unary("ReduceSum", axes=(0, 2), keepdims=0),
    "ReduceMean, two dims": _unary("ReduceMean", axes=(0, 2), keepdims=0),
    "Reshape": _graph(lambda b: b.Reshape(_x(b, 3, 10, 7), shape=(3, 5, 14))),
    "Reshape, split": _graph(lambda b: b.Reshape(_x(b, 4, 30), shape=(4, 5, 1, 6))),
    "Transpose": _graph(lambda b: b.Transpose(_x(b, 3, 5, 7), perm=(2, 0, 1))),
    "Concat": _graph(lambda b: b.Concat(_x(b, 3, 5), _x(b, 3, 2, name="y"), axis=1)),
    "Split": _graph(lambda b: b.Split(_x(b, 7, 5), axis=0, split=(4, 3))),
    "Slice": _graph(lambda b: b.Slice(_x(b, 5, 9, 7), axes=(1,), starts=(2,), ends=(8,))),
    "Unsqueeze": _graph(lambda b: b.Unsqueeze(_x(b, 5, 7), axes=(1,))),
    "Squeeze": _graph(lambda b: b.Squeeze(_x(b, 5, 1, 7), axes=(1,))),
    "Expand": _graph(lambda b: b.Expand(_x(b, 5, 1), shape=(3, 5, 7))),
}
