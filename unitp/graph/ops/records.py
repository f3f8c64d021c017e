"""The table of operators: one record for each, with all facts that other parts of unitp need to know about it.

An operator is its factor rule, from which its shapes, its legal splits and a first cost follow. The other fields of a record
are facts that do not follow from the rule. Code outside this folder reads these records and names no operator.

    register(Operator("MatMul", matmul_rule))                        a function of attributes and input shapes
    register_line("MyScale", "b s d, d -> b s d")                    one line is enough: it is inferred, costed and sharded
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from typing import Any, Literal, NamedTuple

import msgspec

from unitp.errors import GraphError, did_you_mean
from unitp.graph.ops.attributes import Attributes
from unitp.graph.ops.places import MovedFunction, PlacesFunction, SelectedFunction
from unitp.graph.ops.rule import Rule, Shape, parse
from unitp.graph.values import STORED, Attribute, Node, TensorType

RuleFunction = Callable[[Attributes, Sequence[Shape | None], Sequence[Shape] | None], Rule]
DtypeFunction = Callable[[Attributes, Sequence[str]], tuple[str, ...]]
ScratchFunction = Callable[[Sequence[Sequence[int]], int], int]
ExpansionFunction = Callable[[Node, Attributes, tuple[int, ...]], list[Node]]
PermutationFunction = Callable[[Attributes, int], tuple[int, ...]]

Kind = Literal[
    "elementwise",
    "matmul",
    "attention",
    "norm",
    "rotary",
    "cache",
    "look-up",
    "selection",
    "reduction",
    "data movement",
]


class Grain(NamedTuple):
    """The units that an operator is cut by: a factor, its number of units, and the number of groups that these form."""

    factor: str
    units: int
    groups: int


GrainFunction = Callable[[Sequence[Shape | None]], Grain]


class Operator(msgspec.Struct, frozen=True):
    """The facts about one operator.

    rule         the factor rule, from attributes and input shapes
    outputs      how many there are; `arity`: the fewest and the most inputs
    dtypes       of the outputs, from those of the inputs (default: that of the first input)
    kind         the class by which reports add operators up; "matmul" is costed by a device's table of contractions
    flops        per point of the iteration space, which is that of `space` (factors), of all factors (contractions) or
                 of the output
    traffic      which operands move through memory (a look-up reads what it returns)
    scratch      bytes of working space, from the local shapes of the inputs and the bytes of a number
    grain        how planned cuts should fall, from the shapes of the inputs
    view         whether the result can share the memory of an input: "always", "maybe" (some frameworks copy), or never
    permutation  the order of dims, if the operator only permutes them, from attributes and the number of dims
    written      the operand that the first output may be written into, if nothing else needs it
    packed       the operand that a backend may store in a form of its own, if it is a parameter
    stored       the operand that may be a parameter stored in 16 bits, whose numbers are widened (`unitp.graph.stored`)
    expansion    what it becomes if an inner factor is split, from the node, its attributes and the shape of its first input
                 (`unitp.graph.ops.expansions`)
    defaults     the values of attributes that a node may leave out
    constants    the attributes that ONNX passes as inputs, from the second on, in their order
    candidates   whether each rank's outputs are candidates of its own part of the input alone
    internal     whether lowering alone makes it: a graph may not use it
    places, moved, selected    see `unitp.graph.ops.places`
    """

    name: str
    rule: RuleFunction
    outputs: int = 1
    arity: tuple[int, int] = (1, 1)
    dtypes: DtypeFunction | None = None
    kind: Kind = "elementwise"
    flops: float = 1.0
    space: tuple[str, ...] = ()
    traffic: Literal["all", "output", "update", "none"] = "all"
    scratch: ScratchFunction | None = None
    grain: GrainFunction | None = None
    view: Literal["always", "maybe", "never"] = "never"
    permutation: PermutationFunction | None = None
    written: int | None = None
    packed: int | None = None
    stored: int | None = None
    expansion: ExpansionFunction | None = None
    defaults: dict[str, Attribute] = {}
    constants: tuple[str, ...] = ()
    candidates: bool = False
    internal: bool = False
    places: PlacesFunction | None = None
    moved: MovedFunction | None = None
    selected: SelectedFunction | None = None

    def attributes(self, given: Mapping[str, Attribute]) -> Attributes:
        """Return the attributes of a node of this operator, with the defaults of those that are not `given`."""
        return Attributes({**self.defaults, **given})


class Family(list[Operator]):
    """The operators of a module: `register = Family()`, then `register(Operator(...))`."""

    def __call__(self, operator: Operator) -> None:
        """Add an operator."""
        self.append(operator)


_TABLE: dict[str, Operator] = {}


def register(operator: Operator) -> None:
    """Add an operator to those that graphs may use. Raises GraphError if there is one of this name."""
    if operator.name in _TABLE:
        raise GraphError(f"operator {operator.name} is registered twice")
    _enter(operator)


@contextmanager
def replaced(record: Operator) -> Iterator[None]:
    """Replace the record of the same name in the table by `record` within the block.

    It serves to try another rule: tests plant wrong ones. Raises GraphError if no operator has this name.
    """
    before = operator(record.name)
    _enter(record)
    try:
        yield
    finally:
        _enter(before)


def _enter(operator: Operator) -> None:
    """Write a record into the table, and drop the types that were inferred with another one."""
    _TABLE[operator.name] = operator
    _rule.cache_clear()
    _inferred.cache_clear()


def line_rule(line: str, **kinds: str) -> RuleFunction:
    """Return the rule that a factor line says, as in `b s d, d -> b s d` (see `unitp.graph.ops.rule`)."""

    def rule(attrs: Attributes, inputs: Sequence[Shape | None], out: Sequence[Shape] | None) -> Rule:
        return parse(line, inputs, **kinds)  # type: ignore[arg-type]

    return rule


def register_line(name: str, line: str, *, flops: float = 1.0, **kinds: str) -> None:
    """Register an operator by its factor line alone. Its dtype is that of the first input."""
    count, outputs = (part.count(",") + 1 for part in line.split("->"))
    register(Operator(name, line_rule(line, **kinds), outputs, (count, count), flops=flops))


def unregister(name: str) -> None:
    """Remove an operator from the table (a plug-in is unloaded, a test ends)."""
    del _TABLE[name]
    _rule.cache_clear()
    _inferred.cache_clear()


def known_ops() -> set[str]:
    """Return the names of the operators that a graph may use, those of plug-ins included."""
    _add_strangers()
    return {name for name, op in _TABLE.items() if not op.internal}


def operator(name: str) -> Operator:
    """Return the record of an operator. Plug-ins are loaded if it is not built in. Raises GraphError if there is none."""
    if name not in _TABLE:
        _add_strangers()
    if name not in _TABLE:
        raise GraphError(f'unknown operator "{name}"', hint=did_you_mean(name, known_ops()))
    return _TABLE[name]


_MORE: list[Callable[[], Iterable[Operator]]] = []


def look_in(more: Callable[[], Iterable[Operator]]) -> None:
    """Look in `more`, from now on, for operators that the table does not have."""
    _MORE.append(more)


def _add_strangers() -> None:
    """Add the operators of plug-ins to the table."""
    for more in _MORE:
        for one in more():
            if one.name not in _TABLE:
                register(one)


def is_contraction(name: str) -> bool:
    """Say whether the cost of operator `name` is in a device's table of contractions: two operands, the second the weight."""
    return name in _TABLE and _TABLE[name].kind == "matmul"


def output_count(name: str) -> int:
    return operator(name).outputs


@lru_cache(maxsize=4096)
def _rule(op: str, attrs: bytes, inputs: tuple[Shape | None, ...], outputs: tuple[Shape, ...] | None) -> Rule:
    decoded = msgspec.msgpack.decode(attrs, type=dict[str, Attribute])
    known = operator(op)
    return known.rule(known.attributes(decoded), inputs, outputs)


def rule_of(
    op: str, attrs: Mapping[str, Attribute], inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None = None
) -> Rule:
    """Return the factor rule of an operator for these (symbolic or concrete) input shapes; None stands for an absent input.

    Raises GraphError for attributes and shapes that the operator does not take.
    """
    known = operator(op)
    fewest, most = known.arity
    if not fewest <= len(inputs) <= most:
        wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        raise GraphError(f"{op} has {len(inputs)} inputs but takes {wanted}")
    if None in inputs[:fewest]:
        raise GraphError(f"input {inputs.index(None)} of {op} is absent")
    key = msgspec.msgpack.encode(attrs, order="deterministic")
    return _rule(op, key, tuple(inputs), tuple(outputs) if known.internal and outputs is not None else None)


def infer(node: Node, known: Mapping[str, TensorType]) -> tuple[TensorType, ...]:
    """Return the types of a node's outputs. Raises GraphError that names the node if its inputs do not fit."""
    types = tuple(known[name] if name else None for name in node.inputs)
    try:
        return _inferred(node.op, msgspec.msgpack.encode(node.attrs, order="deterministic"), types)
    except GraphError as error:
        raise GraphError(f"{node}: {error.message}", hint=error.hint) from None


@lru_cache(maxsize=4096)
def _inferred(op: str, attrs: bytes, inputs: tuple[TensorType | None, ...]) -> tuple[TensorType, ...]:
    """Return the types of outputs, cached: layers are alike, so most nodes of a graph have been inferred before."""
    decoded = msgspec.msgpack.decode(attrs, type=dict[str, Attribute])
    rule = rule_of(op, decoded, [t.shape if t else None for t in inputs])
    present = [t.dtype for t in inputs if t]
    known = operator(op)
    _require_computed(known, inputs)
    names = known.dtypes(known.attributes(decoded), present) if known.dtypes else (present[0],) * len(rule.outputs)
    return tuple(TensorType(dtype, shape) for dtype, shape in zip(names, rule.output_shapes(), strict=True))


def _require_computed(known: Operator, inputs: Sequence[TensorType | None]) -> None:
    """Raise GraphError if an operand has 16 bits, unless the operator widens it or only permutes its dims."""
    for place, type_ in enumerate(inputs):
        if type_ and type_.dtype in STORED and place != known.stored and known.permutation is None:
            raise GraphError(
                f"input {place} of {known.name} is {type_.dtype}, a type in which parameters are stored but nothing is computed",
                hint="Parameters that MatMul and Gather read may be stored in it.",
            )


def flops(op: str, rule: Rule, local: Mapping[str, Any]) -> Any:
    """Return the FLOPs of an operator whose factors have these local sizes (numbers, or arrays with one number per rank)."""
    known = operator(op)
    if known.space:
        space = set(known.space)
    elif any(factor.kind == "sum" for factor in rule.factors.values()):
        space = set(rule.factors)
    else:
        space = {name for term in rule.outputs[0] for name in term.factors}
    return known.flops * prod(local[name] for name in space)
