"""ONNX's own test vectors for single operators, and its reference evaluator, in unitp's terms.

Where ONNX passes axes, shapes, bounds or k as constant input tensors, unitp has attributes with every default written
out. A case that uses what unitp does not have (a dtype, an attribute, a form that the operator's rule refuses) is
left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.errors import GraphError
from unitp.graph.ops import known_ops, operator
from unitp.graph.values import DTYPES, Attribute
from unitp.testing.operators import graph_of

Array = npt.NDArray[Any]
Arrays = tuple[Array | None, ...]

KNOWN = {
    "ArgMax": {"axis", "keepdims"},
    "Attention": {"is_causal", "scale", "softcap"},
    "Cast": {"to"},
    "Einsum": {"equation"},
    "Concat": {"axis"},
    "Gather": {"axis"},
    "GatherElements": {"axis"},
    "GatherND": {"batch_dims"},
    "Gelu": {"approximate"},
    "Gemm": {"alpha", "beta", "transA", "transB"},
    "LayerNormalization": {"axis", "epsilon"},
    "LogSoftmax": {"axis"},
    "RMSNormalization": {"axis", "epsilon"},
    "ReduceMax": {"keepdims"},
    "ReduceMean": {"keepdims"},
    "ReduceSum": {"keepdims"},
    "RotaryEmbedding": {"interleaved", "rotary_embedding_dim"},
    "Softmax": {"axis"},
    "Split": {"axis"},
    "Swish": {"alpha"},
    "TensorScatter": {"axis"},
    "TopK": {"axis"},
    "Transpose": {"perm"},
}
"""The attributes that unitp has; a case with another one is left out, unless the value is the default below."""

DEFAULTS = {
    "largest": 1,
    "sorted": 1,
    "select_last_index": 0,
    "noop_with_empty_axes": 0,
    "allowzero": 0,
    "mode": "linear",
}
DEFAULTS |= {"stash_type": 1, "saturate": 1, "softmax_precision": 1, "round_mode": "up"}


class Case(msgspec.Struct, frozen=True):
    """An operator with its inputs (None if absent) and the outputs that ONNX expects."""

    name: str
    op: str
    attrs: dict[str, Attribute]
    inputs: Arrays
    outputs: Arrays

    def __str__(self) -> str:
        return self.name

    @property
    def floating(self) -> bool:
        """Whether it computes with floats, which the float64 mode widens."""
        return any(x is not None and x.dtype == np.float32 for x in self.inputs)


def cases() -> Iterator[Case]:
    """ONNX's node test cases for unitp's operators."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):  # ONNX computes its vectors here
        tests: list[Any] = load_model_tests(kind="node")
    for test in tests:
        nodes: list[Any] = list(test.model.graph.node) if test.model is not None else []
        if len(nodes) != 1 or nodes[0].op_type not in known_ops() or nodes[0].domain or not test.data_sets:
            continue
        inputs, outputs = test.data_sets[0]
        if all(isinstance(x, np.ndarray | np.generic) and x.dtype.name in DTYPES for x in (*inputs, *outputs)):
            stored, wanted = ([np.asarray(x) for x in side] for side in (inputs, outputs))
            if (case := _case(test.name.removeprefix("test_"), test.model, stored, wanted)) is not None:
                yield case


def _case(name: str, model: Any, inputs: list[Array], outputs: list[Array]) -> Case | None:
    from onnx.helper import get_attribute_value

    node = model.graph.node[0]
    stored = dict(zip((i.name for i in model.graph.input), inputs, strict=True))
    given: list[Array | None] = [stored[n] if n else None for n in node.input]
    attrs = {a.name: get_attribute_value(a) for a in node.attribute}
    attrs = {key: value.decode() if isinstance(value, bytes) else value for key, value in attrs.items()}
    attrs = {key: value for key, value in attrs.items() if DEFAULTS.get(key) != value}
    if set(attrs) - KNOWN.get(node.op_type, set()):
        return None
    constants = operator(node.op_type).constants
    for key, value in zip(constants, given[1:], strict=False):
        if value is not None:
            attrs[key] = [int(i) for i in value.reshape(-1)]
    if constants:
        given = given[:1]
    normal = normalised(node.op_type, attrs, given, outputs)
    if normal is None:
        return None
    try:
        graph = graph_of(node.op_type, normal, given)
    except GraphError:
        return None
    shapes = [graph.types[name].shape for name in graph.outputs]
    outputs = outputs[: len(shapes)]  # a normalisation's mean, an attention's keys are not unitp's
    if shapes != [o.shape for o in outputs]:
        raise GraphError(f"{name}: unitp infers {shapes}, ONNX has {[o.shape for o in outputs]}")
    return Case(name, node.op_type, normal, tuple(given), tuple(outputs))


def normalised(
    op: str, attrs: dict[str, Any], inputs: Sequence[Array | None], outputs: Sequence[Array]
) -> dict[str, Attribute] | None:
    """Return attributes as unitp writes them: tuples, without defaults that depend on shapes. None: unitp has no such form."""
    shape = inputs[0].shape if inputs and inputs[0] is not None else ()
    out = dict(attrs)
    match op:
        case "Reshape" | "Expand":
            out = {"shape": outputs[0].shape}
        case "Squeeze":
            out.setdefault("axes", [i for i, size in enumerate(shape) if size == 1])
        case "ReduceSum" | "ReduceMax" | "ReduceMean":
            out["axes"] = out.get("axes") or list(range(len(shape)))
        case "ArgMax":
            out.setdefault("axis", 0)
        case "TopK":
            out["k"] = out["k"][0]
        case "Cast":
            from onnx.helper import tensor_dtype_to_np_dtype

            out["to"] = tensor_dtype_to_np_dtype(out["to"]).name
        case "Split":
            out = {"axis": out.get("axis", 0), "split": [o.shape[out.get("axis", 0)] for o in outputs]}
        case "Slice":
            return _slice(shape, out)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in out.items()}


def _slice(shape: tuple[int, ...], attrs: dict[str, Any]) -> dict[str, Attribute] | None:
    axes = attrs.get("axes") or list(range(len(attrs["starts"])))
    if any(step != 1 for step in attrs.get("steps", ())):
        return None
    bounds = [slice(a, b).indices(shape[i]) for i, a, b in zip(axes, attrs["starts"], attrs["ends"], strict=True)]
    return {"axes": tuple(axes), "starts": tuple(a for a, _, _ in bounds), "ends": tuple(b for _, b, _ in bounds)}


def reference(op: str, attrs: dict[str, Attribute], inputs: Sequence[Array | None], outputs: int) -> list[Array]:
    """Return the outputs of ONNX's reference evaluator for an operator (opset 24), in the precision of its inputs."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    feeds = {f"x{i}": array for i, array in enumerate(inputs) if array is not None}
    names = [f"x{i}" if array is not None else "" for i, array in enumerate(inputs)]
    plain: dict[str, Any] = dict(attrs)
    for key in operator(op).constants:
        names.append(f"constant {key}" if key in plain else "")
        if key in plain:
            value = plain.pop(key)
            feeds[names[-1]] = np.array([value] if isinstance(value, int) else value, np.int64)
    if "to" in plain:
        plain["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(plain["to"]))
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, **plain)
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
    given = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in feeds.items()]
    left = [helper.make_tensor_value_info(name, 0, None) for name in results]
    model = helper.make_model(helper.make_graph([node], op, given, left), opset_imports=[helper.make_opsetid("", 24)])
    return list(ReferenceEvaluator(model).run(None, feeds))
