"""Operators: ONNX opset 24, each as one factor rule from which shapes, layouts and costs follow."""

from unitp.graph.ops.operator_hook import OPERATORS
from unitp.graph.ops.records import (
    Grain,
    Operator,
    flops,
    infer,
    is_contraction,
    known_ops,
    line_rule,
    operator,
    output_count,
    register,
    register_line,
    replaced,
    rule_of,
    unregister,
)
from unitp.graph.ops.rule import Factor, Operand, Rule, Term, factor_split, layouts, parse, term_split

__all__ = [
    "OPERATORS",
    "Factor",
    "Grain",
    "Operand",
    "Operator",
    "Rule",
    "Term",
    "factor_split",
    "flops",
    "infer",
    "is_contraction",
    "known_ops",
    "layouts",
    "line_rule",
    "operator",
    "output_count",
    "parse",
    "register",
    "register_line",
    "replaced",
    "rule_of",
    "term_split",
    "unregister",
]
