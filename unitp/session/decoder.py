"""Feeding a decoder: tokens in chunks padded to powers of two, positions, cache places and live rows of the caches.

A call of S tokens at past lengths p writes positions p:p+S. The next call overwrites what padding writes there, and the
causal mask hides it until then. S is 1, or a power of two from 16 to 512 that fits into the cache. `live` is a power of
two of at least 128. So the number of different programs is bounded, however long prompts are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unitp.engine.engine import Array
from unitp.errors import InputError
from unitp.graph.graph import Graph
from unitp.graph.ops import operator
from unitp.graph.source import RopeSource
from unitp.mesh import Mesh
from unitp.program.rows import INPUTS

CHUNK = 512
SMALLEST_CHUNK = 16
SMALLEST_LIVE = 128

Tokens = npt.NDArray[np.int64]


class Head(NamedTuple):
    """What a call returns: these outputs of the graph, for the `last` or for all positions, with this many `candidates`."""

    outputs: tuple[str, ...]
    last: bool
    candidates: int


ALL_LOGITS = Head(("logits",), last=False, candidates=1)
LAST_LOGITS = Head(("logits",), last=True, candidates=1)


def is_decoder(graph: Graph) -> bool:
    """Whether a graph follows the input and output convention of language models here."""
    return bool(graph.states) and all(name in graph.inputs for name in INPUTS) and "logits" in graph.types


def positions(graph: Graph) -> int | None:
    """The number of positions that the graph's rotary tables have rows for, or None if it has no such tables."""
    tables = {node.inputs[1] for node in graph.nodes if operator(node.op).kind == "rotary"}
    rows = [graph.types[name].shape[0] for name in tables]
    rows += [p.source.length for p in graph.parameters if p.name in tables and isinstance(p.source, RopeSource)]
    return min((n for n in rows if isinstance(n, int)), default=None)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least `n`."""
    return 1 << max(n - 1, 0).bit_length()


def chunk_width(remaining: int, past: int, cache: int) -> int:
    """The number of tokens of the next call, for `remaining` tokens after `past` ones.

    At least one token fits while past < cache.
    """
    width = 1 if remaining == 1 else min(max(power_of_two(remaining), SMALLEST_CHUNK), CHUNK)
    while past + width > cache:
        width //= 2
    return width


def live_rows(needed: int, cache: int) -> int:
    """The number of cache rows that a call reads if it needs `needed`: a power of two, at most all."""
    return min(max(power_of_two(needed), SMALLEST_LIVE), cache)


class Call(NamedTuple):
    """The sizes and inputs of one call of the ranks; how many more tokens a sequence may get before more rows are live."""

    sizes: dict[str, int]
    inputs: dict[str, Array]
    room: int


Execute = Callable[[dict[str, int], tuple[str, ...], dict[str, Array]], dict[str, Array]]
"""Runs the program for these sizes and outputs on whole arrays, and returns whole outputs."""


def cache_rows(context: int) -> int:
    """The number of rows of a cache for a sequence of `context` tokens."""
    return -(-context // SMALLEST_LIVE) * SMALLEST_LIVE


class Decoder:
    """The sizes of a language model's caches, and the way from tokens to calls."""

    def __init__(self, graph: Graph, context: int) -> None:
        self.context = context
        self.vocab = int(graph.types["logits"].shape[-1])
        self.cache = cache_rows(context)
        self.positions = positions(graph) or self.cache

    def feed(
        self, execute: Execute, held: Sequence[list[int]], tokens: Sequence[Sequence[int]], head: Head
    ) -> list[dict[str, Array]]:
        """Add tokens to each sequence, chunk by chunk, and to `held`, the tokens in the caches that `execute` works on.

        Sequences may get different numbers of tokens, some none. Returns the outputs [positions, ...] of each sequence, of the
        last position or of all; an empty dict for a sequence that got no token.
        """
        left = [list(new) for new in tokens]
        found: list[list[dict[str, Array]]] = [[] for _ in left]
        while any(left):
            past = max(len(row) for row, new in zip(held, left, strict=True) if new)
            width = chunk_width(max(map(len, left)), past, self.cache)
            now = [new[:width] for new in left]
            left = [new[width:] for new in left]
            outputs = self._call(execute, held, now, width, head)
            for row, (new, rest) in enumerate(zip(now, left, strict=True)):
                if new and not (head.last and rest):
                    taken = 1 if head.last else len(new)
                    found[row].append({name: array[row, :taken] for name, array in outputs.items()})
        return [_joined(rows) for rows in found]

    def _call(
        self, execute: Execute, held: Sequence[list[int]], now: Sequence[Sequence[int]], width: int, head: Head
    ) -> dict[str, Array]:
        """One call of `width` tokens."""
        call = self.call(held, now, width, head)
        outputs = execute(call.sizes, head.outputs, call.inputs)
        for known, new in zip(held, now, strict=True):
            known.extend(new)
        return outputs

    def call(self, held: Sequence[list[int]], now: Sequence[Sequence[int]], width: int, head: Head) -> Call:
        """The sizes and inputs of a call of `width` tokens. A sequence with fewer is padded on the right with a token of its own.

        A token whose values are not finite would spoil the sums of all queries, even with weight zero.
        """
        self._make_room(held, now, width)
        ids = np.zeros((len(held), width), np.int64)
        for row, (known, new) in enumerate(zip(held, now, strict=True)):
            ids[row] = (new or known or (0,))[-1]
            ids[row, : len(new)] = new
        past = np.array([len(row) for row in held], np.int64)
        counts = np.array([len(new) for new in now], np.int64)
        steps = np.arange(width, dtype=np.int64)
        take = np.maximum(counts - 1, 0)[:, None] if head.last else np.broadcast_to(steps, ids.shape)
        inputs: dict[str, Array] = {
            "input_ids": ids,
            "position_ids": np.minimum(past[:, None] + steps, self.positions - 1),
            "write_indices": past,
            "kv_length": past + width,
            "logits_index": take,
        }
        sizes = {
            "batch": len(held),
            "seq": width,
            "cache": self.cache,
            "live": live_rows(int(past.max()) + width, self.cache),
            "take": take.shape[1],
            "candidates": head.candidates,
        }
        return Call(sizes, inputs, sizes["live"] - int(past.max()) - width)

    def _make_room(self, held: Sequence[list[int]], now: Sequence[Sequence[int]], width: int) -> None:
        """Drop the last rows of a sequence that gets no token near the end of its cache: padding overwrites them."""
        for row, new in zip(held, now, strict=True):
            if not new:
                del row[self.cache - width :]

    def require(self, prompts: Sequence[Sequence[int]], past: int = 0) -> None:
        """Check token ids. Raises InputError that names every sequence that is empty, too long or has ids out of range."""
        require_tokens(prompts, self.vocab, self.context, past)


def require_tokens(prompts: Sequence[Sequence[int]], vocab: int, context: int, past: int = 0) -> None:
    """Check token ids after `past` others. Raises InputError that names every empty, too long or out-of-range sequence."""
    found = []
    hint = ""
    for number, prompt in enumerate(prompts):
        which = f"prompt {number}: " if len(prompts) > 1 else ""
        if len(prompt) == 0:
            found.append(f"{which}there are no tokens")
        elif past + len(prompt) > context:
            found.append(f"{which}{past + len(prompt)} tokens do not fit into a context of {context}")
            hint = "A larger context is given at launch (--context)."
        if bad := [int(t) for t in prompt if not 0 <= t < vocab]:
            found.append(f"{which}token {bad[0]} is not from 0 to {vocab - 1}")
    if found:
        raise InputError("; ".join(found), hint=hint)


def require_prompts(count: int, mesh: Mesh) -> None:
    """Check the number of prompts. Raises InputError if there are fewer than axis dp has coordinates."""
    needed = mesh.sizes.get("dp", 1)
    if count < needed:
        raise InputError(
            f"{'1 prompt is' if count == 1 else f'{count} prompts are'} fewer than the {needed} of axis dp, which splits prompts",
            hint=f"Give at least {needed} prompts, or take a mesh with a smaller dp.",
        )


def _joined(rows: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """The outputs of several chunks, concatenated."""
    if len(rows) < 2:
        return rows[0] if rows else {}
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
