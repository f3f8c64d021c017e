"""The names of a Llama-type decoder's parameters in Hugging Face's modules."""

from __future__ import annotations

from unitp.frontends.huggingface_weights import LAYER_NAMES, NAMES, spelled
from unitp.graph.graph import Graph
from unitp.graph.ops import operator
from unitp.graph.source import RangeSource, RopeSource


def stored(graph: Graph) -> list[str]:
    """Return the parameters that a model file holds: all except tables that follow from the config."""
    return [p.name for p in graph.parameters if not isinstance(p.source, RopeSource | RangeSource)]


def spellable(graph: Graph) -> bool:
    """Say whether every parameter is one of a Hugging Face module; stacked experts are not."""
    own, parts = set(NAMES.values()), set(LAYER_NAMES.values())
    names = [n.split(".") for n in stored(graph) if n not in own]
    return bool(names) and all(n[0] == "blk" and n[1].isdecimal() and n[2] in parts for n in names)


def halves(graph: Graph) -> bool:
    """Say whether rotary pairs are halves of a head, as in Hugging Face; if not, the rows of Q and K are permuted."""
    return not any(
        operator(n.op).attributes(n.attrs).truth("interleaved") for n in graph.nodes if operator(n.op).kind == "rotary"
    )


def names(graph: Graph) -> dict[str, str]:
    """Return the name of each stored parameter: Hugging Face's if its tensors have the same rows, else the graph's own."""
    if spellable(graph) and halves(graph):
        return {name: spelled(name) for name in stored(graph)}
    return {name: name for name in stored(graph)}
