"""Attention with grouped heads, rotary embedding, and the scatter that appends to a cache."""

from __future__ import annotations

from collections.abc import Sequence

from unitp.errors import GraphError
from unitp.graph.ops.attributes import Attributes
from unitp.graph.ops.places import Place
from unitp.graph.ops.records import Family, Grain, Operator
from unitp.graph.ops.rule import Operand, Rule, Shape, Term, parse

register = Family()
"""The operators of this module."""

SCORES = 8 << 20
"""The most bytes of scores that are held at a time: those of a chunk over a long cache would be most of a rank's memory."""
FEWEST = 64
"""At least this many queries are computed at a time, however long the cache is."""


def attention(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b h s e, b h/r t e, b h/r t f -> b h s f`, whole: s t e f. Query heads are split; KV heads get an overlapping split.

    Raises GraphError for operands that do not have four dims, for caches among the inputs, if the number of KV heads does not
    divide that of query heads, and for a mask that does not broadcast to the scores.
    """
    if any(s is None or len(s) != 4 for s in inputs[:3]):
        raise GraphError("Attention wants q, k and v with four dims: batch, heads, positions, head size")
    if any(s is not None for s in inputs[4:6]):
        raise GraphError(
            "Attention's past_key and past_value are not used here: scatter into a cache with TensorScatter"
        )
    q, k = (tuple(s or ()) for s in inputs[:2])
    heads, groups = q[1], k[1]
    if not (isinstance(heads, int) and isinstance(groups, int)) or groups < 1 or heads % groups:
        raise GraphError(f"Attention has {heads} query heads over {groups} KV heads, which must divide them")
    head = "h/r" if heads != groups else "h"
    given = list(inputs[:3])
    line = f"b h s e, b {head} t e, b {head} t f"
    mask = inputs[3] if len(inputs) > 3 else None
    length = inputs[6] if len(inputs) > 6 else None
    if length is not None:
        line, given = line + ", b", [*given, length]
    rule = parse(line + " -> b h s f", given, ratio=heads // groups, whole="s t e f")
    placed: list[Operand | None] = [*rule.inputs[:3], None, None, None, None]
    if mask is not None:
        placed[3] = _mask_terms(mask, rule)
    placed[6] = rule.inputs[3] if length is not None else None
    return Rule(rule.factors, tuple(placed[: len(inputs)]), rule.outputs)


def _mask_terms(mask: Shape, rule: Rule) -> Operand:
    names = ("b", "h", "s", "t")[max(4 - len(mask), 0) :]
    fits = (size in (1, rule.factors[name].size) for name, size in zip(names, mask, strict=False))
    if len(mask) > 4 or not all(fits):
        raise GraphError(f"Attention's mask {mask} does not broadcast over batch, heads, queries, keys")
    return tuple(Term((n,)) if rule.factors[n].size == size else Term() for n, size in zip(names, mask, strict=True))


def rotary(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b h s e, p r, p r, b s -> b h s e`, whole: e p r.

    Raises GraphError if the first operand does not have four dims, or the shapes contradict the line.
    """
    if len(inputs[0] or ()) != 4:
        raise GraphError("RotaryEmbedding wants four dims: batch, heads, positions, head size")
    return parse("b h s e, p r, p r, b s -> b h s e", inputs, whole="e p r")


def scatter(attrs: Attributes, inputs: Sequence[Shape | None], outputs: Sequence[Shape] | None) -> Rule:
    """`b g t e, b g s e, b -> b g t e`, whole: t s.

    Raises GraphError for another dim than 2, for more rows than the state has, and for shapes that contradict the line.
    """
    if attrs.whole("axis") not in (-2, 2):
        raise GraphError("TensorScatter is known along dim 2 of four only")
    rule = parse("b g t e, b g s e, b -> b g t e", inputs, whole="t s")
    held, update = rule.factors["t"].size, rule.factors["s"].size
    if isinstance(held, int) and isinstance(update, int) and update > held:
        raise GraphError(f"TensorScatter of {update} rows into {held}")
    return rule


def _valid_keys(attrs: Attributes, inputs: Sequence[Shape | None]) -> tuple[Place, ...]:
    given = len(inputs) > 6 and inputs[6] is not None
    return (Place(6, "number of valid keys", 1, int((inputs[1] or ())[2])),) if given else ()


def _positions(attrs: Attributes, inputs: Sequence[Shape | None]) -> tuple[Place, ...]:
    return (Place(3, "position", 0, int((inputs[1] or ())[0]) - 1),)


def _first_rows(attrs: Attributes, inputs: Sequence[Shape | None]) -> tuple[Place, ...]:
    held, update = inputs[0] or (), inputs[1] or ()
    return (Place(2, "row to write from", 0, int(held[2]) - int(update[2])),)


def _heads(inputs: Sequence[Shape | None]) -> Grain:
    """Return the grain: whole query heads, and whole groups of those that share a KV head."""
    return Grain("h", int((inputs[0] or ())[1]), int((inputs[1] or ())[1]))


def blocks(queries: int, row_bytes: int) -> list[tuple[int, int]]:
    """Return the intervals of queries to compute at a time, as equal as possible. `row_bytes` is the size of the scores of one query."""
    count = max(-(-queries // max(SCORES // max(row_bytes, 1), FEWEST)), 1)
    return [(i * queries // count, (i + 1) * queries // count) for i in range(count)]


def _scores(inputs: Sequence[Sequence[int]], item: int) -> int:
    """Return the bytes of the scores of a block of queries, and of a copy for frameworks that mask out of place."""
    (batch, heads, queries, _), keys = inputs[0], inputs[1][2]
    row = batch * heads * keys * item
    return 2 * row * max(stop - start for start, stop in blocks(queries, row))


register(
    Operator(
        "Attention",
        attention,
        arity=(3, 7),
        defaults={"is_causal": 0, "softcap": 0.0},
        kind="attention",
        flops=4,
        space=("b", "h", "s", "t", "e"),
        scratch=_scores,
        grain=_heads,
        places=_valid_keys,
    )
)
register(
    Operator(
        "RotaryEmbedding",
        rotary,
        defaults={"interleaved": 0, "rotary_embedding_dim": 0},
        arity=(4, 4),
        kind="rotary",
        flops=4,
        traffic="output",
        places=_positions,
    )
)  # its tables: a few rows are read
register(
    Operator(
        "TensorScatter",
        scatter,
        defaults={"axis": -2},
        arity=(3, 3),
        kind="cache",
        space=("b", "g", "s", "e"),
        traffic="update",
        written=0,
        places=_first_rows,
    )
)
