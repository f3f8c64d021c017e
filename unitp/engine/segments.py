"""The segmenter cuts a program, or a recording of it, into segments that a framework compiles and calls as one.

A *node* is an instruction or a recorded call, which reads and writes values. There are two ways to group nodes. `cut` then makes
segments of the groups: what they read, what others read from them, and which values they read last. `structure` says which
segments may share a compiled function. Nothing here depends on a framework.

`repeats` cuts a list of instructions where its structure is periodic, so that the layers of a model are one function:
a graph of all layers would cost TensorFlow 14 KB an operator, and seconds. If key(i) is what instruction i does, without
names, the period P and the run [a, b) are those that save most,

    key(i) = key(i + P)  for all i in [a, b - P)        saved = b - a - P

and the groups are [0, a), [a, a + P), [a + P, a + 2P), ..., the rest.

`levels` groups calls that one function may contain, between calls that the host must do itself. With level(input) = 0,

    level(operator) = max level(its inputs)        level(host call's result) = 1 + max level(its inputs)

and ordered host calls never on a lower level than one that was recorded earlier. All operators of one level are a group, which
runs before the host calls of that level.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, final

import numpy as np

from unitp.engine.engine import Progress
from unitp.engine.interpreter import Part, Runner, recipe
from unitp.engine.steps import Slots, Step, carry_out, step_of
from unitp.errors import RankError
from unitp.program.analysis import last_uses
from unitp.program.instructions import reads

V = TypeVar("V", bound=Hashable)
V_co = TypeVar("V_co", bound=Hashable, covariant=True)


class Node(Protocol[V_co]):
    """A part of a segment: the values that it reads, and those that it makes. Each value is made by one node."""

    @property
    def reads(self) -> tuple[V_co, ...]: ...
    @property
    def writes(self) -> tuple[V_co, ...]: ...


class Call(Node[V_co], Protocol[V_co]):
    """A node that the host may have to do itself (`host`); all ranks do `ordered` ones in the same order."""

    @property
    def host(self) -> bool: ...
    @property
    def ordered(self) -> bool: ...


N = TypeVar("N", bound=Node[Any])
C = TypeVar("C", bound=Call[Any])
K = TypeVar("K", bound=Hashable)
W = TypeVar("W", bound=Hashable)


@dataclass(frozen=True)
class Segment(Generic[N, V]):
    """Nodes that run as one.

    They read values from outside, make values that others (or the caller) read, and are the last readers of some values.
    """

    nodes: tuple[N, ...]
    inputs: tuple[V, ...]
    outputs: tuple[V, ...]
    dead: tuple[V, ...]


class Structure(NamedTuple, Generic[K, W]):
    """A segment apart from the names of its values, which are numbered: inputs first, then what each node makes.

    `kinds`: what is known of each input; `steps`: what each node does and the numbers that it reads; `outputs`: numbers.
    """

    kinds: tuple[K, ...]
    steps: tuple[tuple[W, tuple[int, ...]], ...]
    outputs: tuple[int, ...]


def cut(groups: Sequence[Sequence[N]], results: Set[V], kept: Set[V]) -> list[Segment[N, V]]:
    """Return one segment for each group, in the order in which they run.

    `results` are read when all have run. `kept` values are never dropped, since they outlive a run.
    """
    made = [dict.fromkeys(value for node in group for value in node.writes) for group in groups]
    inputs = [
        tuple(dict.fromkeys(value for node in group for value in node.reads if value not in own))
        for group, own in zip(groups, made, strict=True)
    ]
    wanted = {*results, *(value for read in inputs for value in read)}
    dead = last_uses(inputs, {*results, *kept})
    return [
        Segment(tuple(group), read, tuple(value for value in own if value in wanted), tuple(gone))
        for group, own, read, gone in zip(groups, made, inputs, dead, strict=True)
    ]


def structure(segment: Segment[N, V], kind: Callable[[V], K], what: Callable[[N], W]) -> Structure[K, W]:
    """Return the structure of a segment.

    `kind` returns what a function has to know of an input, and `what` what a node does, both without names.
    """
    numbers = {value: number for number, value in enumerate(segment.inputs)}
    steps = []
    for node in segment.nodes:
        read = tuple(numbers[value] for value in node.reads)
        for value in node.writes:
            numbers[value] = len(numbers)
        steps.append((what(node), read))
    kinds = tuple(kind(value) for value in segment.inputs)
    return Structure(kinds, tuple(steps), tuple(numbers[value] for value in segment.outputs))


# cut where the program is periodic


def repeating(runner: Runner) -> list[tuple[Segment[Part, str], Structure[str, Hashable]]]:
    """Return the instructions of `runner`, cut where they repeat. Segments of equal structure may share a function.

    Keys hold global types and layouts only: all ranks cut alike, which is what the names of their collectives need.
    """
    program, parts = runner.program, runner.parts
    keys = {part.number: _key(runner, part) for part in parts}
    bounds = repeats([keys[part.number] for part in parts])
    results = {*program.outputs, *(new for _, new in program.states), *runner.watched}
    kept = {*runner.constants, *runner.operands, *(old for old, _ in program.states)}
    written = {old for old, _ in program.states} | runner.in_place
    segments = cut([parts[start:stop] for start, stop in pairwise(bounds)], results, kept)

    def kind(name: str) -> str:
        return "state" if name in written else "value"

    return [(segment, structure(segment, kind, lambda part: keys[part.number])) for segment in segments]


def _key(runner: Runner, part: Part) -> Hashable:
    """Return what an instruction does, without the names of its values."""
    instruction = runner.program.instructions[part.number]
    values = tuple(runner.program.values[name] for name in (*reads(instruction), *part.writes))
    operands = tuple(runner.operands[name][1] if name in runner.operands else None for name in part.reads)
    return recipe(instruction), values, operands, part.writes[0] in runner.in_place, runner.guards.get(part.number)


def repeats(keys: Sequence[Hashable]) -> list[int]:
    """Return the positions at which the groups of a list begin, and its end."""
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    best, found = 0, (0, len(codes), max(len(codes), 1))
    for period in range(1, len(codes) // 2 + 1):
        start, run = _longest(codes[:-period] == codes[period:])
        saved = run // period * period
        if saved > best:
            best, found = saved, (start, start + saved + period, period)
    start, stop, period = found
    return sorted({0, *range(start, stop + 1, period), len(codes)})


def _longest(equal: Any) -> tuple[int, int]:
    """Return the start of the longest run of true values, and its length."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], equal.astype(np.int8), [0]])))
    if not edges.size:
        return 0, 0
    lengths = edges[1::2] - edges[::2]
    longest = int(np.argmax(lengths))
    return int(edges[2 * longest]), int(lengths[longest])


# cut where the host must act


def levels(calls: Sequence[C], results: Set[Any]) -> list[list[C]]:
    """Return the groups of a recording, in the order in which they run; each host call is a group of its own.

    Calls on which neither results nor host calls depend are left out.
    """
    made = {value: call for call in calls for value in call.writes}
    level: dict[Any, int] = {}
    groups: dict[int, tuple[list[C], list[C]]] = {}
    last = 0
    for call in _needed(calls, results):
        at = max((_ready(made, level, value) for value in call.reads), default=0)
        if call.ordered:
            at = last = max(at, last)
        level.update(dict.fromkeys(call.writes, at))
        groups.setdefault(at, ([], []))[call.host].append(call)
    ordered = []
    for at in sorted(groups):
        operators, host = groups[at]
        ordered += [operators] if operators else []
        ordered += [[call] for call in host]
    return ordered


def _needed(calls: Sequence[C], results: Set[Any]) -> list[C]:
    """Return the calls on which results or host calls depend, in the order recorded."""
    wanted, found = set(results), []
    for call in reversed(calls):
        if call.host or not wanted.isdisjoint(call.writes):
            wanted.update(call.reads)
            found.append(call)
    return found[::-1]


def _ready(made: Mapping[Any, C], level: Mapping[Any, int], value: Any) -> int:
    """Return the first level at which a value may be read."""
    return level[value] + made[value].host if value in level else 0


# run


@final
class Schedule:
    """Segments as steps over slots. Progress has the first instruction of each; errors name the rank and all instructions."""

    def __init__(self, rank: int, progress: Progress) -> None:
        self._rank, self._progress = rank, progress
        self._steps: list[tuple[int, Step]] = []
        self._ends: dict[int, int] = {}

    def add(
        self,
        instructions: Sequence[int],
        fn: Callable[..., Any],
        inputs: Sequence[int],
        outputs: Sequence[int],
        dead: Sequence[int],
    ) -> None:
        """Add a step: give `fn` the slots `inputs`, store its outputs in the slots `outputs`, and empty the slots `dead`.

        `fn` returns a single output as it is, and several as a sequence. `instructions`: the numbers of the segment's
        instructions, in order.
        """
        first, last = instructions[0], instructions[-1]
        self._steps.append((first, step_of(fn, inputs, outputs, dead)))
        self._ends[first] = max(last, self._ends.get(first, last))

    def run(self, values: Slots) -> None:
        """Run all segments on these slots. Raises RankError for an error of the framework."""
        carry_out(self._steps, values, self._progress, self._failed)

    def _failed(self, first: int, error: Exception) -> RankError:
        last = self._ends[first]
        where = f"instruction {first}" if first == last else f"instructions {first} to {last}"
        return RankError(f"rank {self._rank} failed in {where}: {type(error).__name__}: {error}")
