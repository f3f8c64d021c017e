"""The factor lines: shapes and layouts that follow from them."""

import pytest

from unitp.errors import GraphError
from unitp.frontends.builder import Builder
from unitp.graph.ops import factor_split, infer, layouts, rule_of, term_split
from unitp.graph.ops.rule import Rule, Term
from unitp.graph.values import Node, TensorType
from unitp.layout import Layout, Split

HEADS = Split(("tp",), ((0, 5), (5, 9)))


def term(rule: Rule, operand: int, dim: int) -> Term:
    """The factors of a dim of an operand that the rule has."""
    terms = rule.inputs[operand]
    assert terms is not None
    return terms[dim]


def test_a_contraction_split_over_its_sum_leaves_a_partial_sum():
    rule = rule_of("MatMul", {}, [("batch", 8, 6), (6, 4)])
    k = Split(("tp",), ((0, 4), (4, 6)))
    inputs, outputs = layouts(rule, {"k": k})
    assert inputs == (Layout((None, None, k)), Layout((k, None)))
    assert outputs == (Layout((None, None, None), ("tp",)),)
    assert rule.output_shapes() == [("batch", 8, 4)]


def test_a_bias_is_taken_once():
    rule = rule_of("Gemm", {"transB": 1}, [(5, 6), (4, 6), (4,)])
    k = Split(("tp",), ((0, 4), (4, 6)))
    inputs, _ = layouts(rule, {"k": k})
    assert inputs[2] == Layout((None,), ("tp",))


def test_kv_heads_follow_query_heads_as_a_cover():
    q, kv = (2, 9, 1, 64), (2, 3, 8, 64)
    rule = rule_of("Attention", {"is_causal": 1}, [q, kv, kv, None, None, None, (2,)])
    inputs, outputs = layouts(rule, {"h": HEADS})
    groups = Split(("tp",), ((0, 2), (1, 3)))
    assert inputs[1] == inputs[2] == Layout((None, groups, None, None))
    assert outputs[0] == Layout((None, HEADS, None, None))
    assert factor_split(rule, term(rule, 1, 1), groups) is None
    by_group = Split(("tp",), ((0, 2), (2, 3)))
    assert factor_split(rule, term(rule, 1, 1), by_group) == Split(("tp",), ((0, 6), (6, 9)))


def test_of_a_merged_dim_only_the_major_factor_splits():
    rule = rule_of("Reshape", {"shape": ("batch", "seq", 9, 64)}, [("batch", "seq", 576)])
    assert rule.splittable("g2_0")
    assert not rule.splittable("g2_1")
    assert term_split(rule, term(rule, 0, 2), {"g2_0": HEADS}) == Split(("tp",), ((0, 320), (320, 576)))
    assert factor_split(rule, term(rule, 0, 2), Split(("tp",), ((0, 288), (288, 576)))) is None


@pytest.mark.parametrize(
    "source,target,splittable",
    [
        ((4, 6), (24,), 1),
        ((24,), (4, 6), 1),
        ((2, 3, 4), (6, 4), 2),
        ((6, 4), (8, 3), 0),
        ((5, 1, 7), (5, 7), 2),
        ((12,), (3, 1, 4), 1),
        (("batch", 3, 4), ("batch", 12), 2),
    ],
)
def test_the_factors_of_a_reshape_follow_from_its_shapes(source, target, splittable):
    rule = rule_of("Reshape", {"shape": target}, [source])
    assert rule.output_shapes() == [target]
    assert sum(rule.splittable(f) for f, x in rule.factors.items() if x.size != 1) == splittable


@pytest.mark.parametrize(
    "op,attrs,shapes,word",
    [
        ("MatMul", {}, [(2, 3), (4, 5)], "3 columns meet 4 rows"),
        ("MatMul", {}, [(2, 3)], "has 1 inputs"),
        ("Add", {}, [(2, 3), (4, 3)], "broadcast"),
        ("Reshape", {"shape": (5,)}, [(2, 3)], "cannot reshape"),
        ("TopK", {"k": 9}, [(2, 3)], "TopK of 9"),
        ("Transpose", {"perm": (0, 0)}, [(2, 3)], "Transpose"),
        ("Attention", {}, [(1, 9, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4)], "must divide"),
        ("Softmaxx", {}, [(2, 3)], "unknown operator"),
        ("Softmax", {"axis": 5}, [(2, 3)], "dim 5"),
        ("Slice", {"axes": (0,), "starts": (1,), "ends": (9,)}, [(2, 3)], "Slice 1:9"),
    ],
)
def test_what_does_not_fit_is_refused(op, attrs, shapes, word):
    types = {f"x{i}": TensorType("float32", s) for i, s in enumerate(shapes)}
    with pytest.raises(GraphError, match=word):
        infer(Node(op, tuple(types), ("y", "z"), attrs), types)


def test_a_misspelt_operator_is_told_its_name():
    with pytest.raises(GraphError, match='Did you mean "Softmax"'):
        Builder("b").Sotfmax("x")
