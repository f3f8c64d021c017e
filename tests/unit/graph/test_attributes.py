"""Attributes: their defaults are ONNX's, and whoever reads one gets a value of its type or a GraphError that names it."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from unitp.errors import GraphError
from unitp.graph.ops import known_ops, operator
from unitp.graph.ops.attributes import Attributes

OPSET = 24
KNOWN = {schema.name for schema in onnx.defs.get_all_schemas()}
DEFAULTS = [(op, name) for op in sorted(known_ops() & KNOWN) for name in operator(op).defaults]


@pytest.mark.parametrize(("op", "name"), DEFAULTS)
def test_defaults_are_those_of_onnx(op: str, name: str) -> None:
    given = onnx.helper.get_attribute_value(onnx.defs.get_schema(op, OPSET).attributes[name].default_value)
    found = operator(op).attributes({})
    if isinstance(given, bytes):
        assert found.word(name) == given.decode()
    else:
        assert found.rounded(name) == given


def test_what_a_node_gives_comes_before_the_default() -> None:
    assert operator("Softmax").attributes({}).dim(3) == 2
    assert operator("Softmax").attributes({"axis": 0}).dim(3) == 0
    assert operator("Swish").attributes({"alpha": 0.1}).rounded("alpha") == float(np.float32(0.1))


def test_dims_are_counted_from_the_front_in_the_order_of_the_attribute() -> None:
    assert Attributes({"axes": (-1, 0)}).dims(3) == (2, 0)


@pytest.mark.parametrize("value", ["2", (2,), 0.5, math.inf, math.nan, None])
def test_no_whole_number_is_refused_by_name(value: object) -> None:
    attrs = Attributes({} if value is None else {"k": value})  # type: ignore[dict-item]
    with pytest.raises(GraphError, match=r"attribute k is .* but must be a"):
        attrs.whole("k")


@pytest.mark.parametrize("read", [Attributes.word, Attributes.wholes, Attributes.sizes, Attributes.dims])
def test_a_number_is_neither_text_nor_a_tuple(read) -> None:
    with pytest.raises(GraphError, match="attribute k is 3 but must be"):
        read(Attributes({"k": 3}), *([4, "k"] if read is Attributes.dims else ["k"]))


@pytest.mark.parametrize("axis", [-3, 2])
def test_a_dim_that_a_tensor_lacks_is_refused(axis: int) -> None:
    with pytest.raises(GraphError, match=f"dim {axis} of a tensor with 2 dims"):
        Attributes({"axis": axis}).dim(2)
