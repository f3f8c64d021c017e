"""A program as a few tf.functions: what repeats (the layers of a model) is traced once and called again and again.

A graph costs TensorFlow about 14 KB per operator, and time to trace and optimise; one of all layers would cost every
program 110 MB and seconds. So the list of instructions is cut where its structure is periodic: with key(i) what
instruction i does, apart from names, the period P and the run [a, b) are those that save most,

    key(i) = key(i + P)  for all i in [a, b - P)        saved = b - a - P

and the segments are [0, a), [a, a + P), [a + P, a + 2P), ..., the rest. Two segments share a function where their
instructions are equal after renaming. Keys hold global types and layouts only: all ranks cut and trace alike, which is
what the instance keys of collectives need.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from unitp.engine.interpreter import Part, Runner, recipe
from unitp.program.instructions import Program, reads


class Segment(NamedTuple):
    """Consecutive instructions: the slots (by name) that they read from outside and that others read from them."""

    parts: tuple[Part, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dead: tuple[str, ...]
    key: Hashable


def segments(runner: Runner) -> list[Segment]:
    """The program of `runner`, cut into segments; equal keys mean equal functions."""
    program, parts = runner.program, runner.parts
    results = {*program.outputs, *(new for _, new in program.states), *runner.watched}
    bounds = _bounds([_key(program, part, runner) for part in parts])
    last = {name: number for number, part in enumerate(parts) for name in part.reads}
    kept = {*results, *runner.constants, *runner.operands, *(old for old, _ in program.states)}
    out = []
    for start, stop in pairwise(bounds):
        body = tuple(parts[start:stop])
        made = dict.fromkeys(name for part in body for name in part.writes)
        inputs = tuple(dict.fromkeys(name for part in body for name in part.reads if name not in made))
        outputs = tuple(name for name in made if name in results or last.get(name, -1) >= stop)
        dead = tuple(name for name in inputs if name not in kept and last[name] < stop)
        out.append(Segment(body, inputs, outputs, dead, _structure(runner, body, inputs, outputs)))
    return out


def _key(program: Program, part: Part, runner: Runner) -> Hashable:
    """What an instruction does, apart from the names of its values."""
    instruction = program.instructions[part.number]
    values = tuple(program.values[name] for name in (*reads(instruction), *part.writes))
    operands = tuple(runner.operands[name][1] if name in runner.operands else None for name in part.reads)
    return recipe(instruction), values, operands, part.writes[0] in runner.in_place, runner.guards.get(part.number)


def _structure(runner: Runner, body: Sequence[Part], inputs: Sequence[str], outputs: Sequence[str]) -> Hashable:
    """The instructions of a segment with its values numbered in the order in which they appear."""
    states = {old for old, _ in runner.program.states} | runner.in_place
    numbers = {name: number for number, name in enumerate(inputs)}
    kinds = tuple("state" if name in states else "value" for name in inputs)
    steps = []
    for part in body:
        read = tuple(numbers[name] for name in part.reads)
        for name in part.writes:
            numbers[name] = len(numbers)
        steps.append((_key(runner.program, part, runner), read))
    return kinds, tuple(steps), tuple(numbers[name] for name in outputs)


def _bounds(keys: Sequence[Hashable]) -> list[int]:
    """Where the segments begin, and the end."""
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    best, found = 0, (0, len(codes), max(len(codes), 1))
    for period in range(1, len(codes) // 2 + 1):
        start, run = _longest(codes[:-period] == codes[period:])
        repeats = run // period
        if repeats * period > best:
            best, found = repeats * period, (start, start + (repeats + 1) * period, period)
    start, stop, period = found
    return sorted({0, *range(start, stop + 1, period), len(codes)})


def _longest(equal: Any) -> tuple[int, int]:
    """Where the longest run of true values starts, and its length."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], equal.astype(np.int8), [0]])))
    if not edges.size:
        return 0, 0
    lengths = edges[1::2] - edges[::2]
    longest = int(np.argmax(lengths))
    return int(edges[2 * longest]), int(lengths[longest])
