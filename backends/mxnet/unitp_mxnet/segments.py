"""A program as compiled segments: what is recorded of one run on promises, cut where the host must act.

Recorded calls are MXNet operators, and *host* calls between them (collectives, writes into states, sorting). With
level(input) = 0,

    level(operator) = max level(its inputs)        level(host call's result) = 1 + max level(its inputs)

and ordered host calls never before one that was recorded earlier, all operators of one level form one segment, a
CachedOp, which runs before the host calls of that level. Equal calls are recorded once (rotary angles of all layers).
Segments of equal structure share one CachedOp (so do the layers of a model), which keeps memory and compile time
independent of depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from unitp.engine.engine import Progress, Silent
from unitp.engine.interpreter import Runner
from unitp.errors import InputError, RankError, UnitpError, from_signal
from unitp_mxnet.operators import Later, Tensor, Type, array, infer, mx, symbol, variable

Attrs = tuple[tuple[str, str], ...]
Slots = list[Tensor]
Structure = tuple[Any, ...]


RESHAPE = "_np_reshape"

Compiled = tuple[Any, list[int]]
"""A CachedOp, and the places of its inputs among those of the segment, in the order in which it wants them."""


class Call(NamedTuple):
    """A recorded call: an operator by name, or a host function. `at`: the instruction that it is part of."""

    what: str | Callable[..., Any]
    inputs: tuple[int, ...]
    attrs: Attrs
    ordered: bool
    at: int


class Recording:
    """The tape of one program: feed it `given` promises, run the program on them, then `compile`."""

    def __init__(self) -> None:
        self.types: list[Type] = []
        self.calls: dict[int, Call] = {}
        self.constants: dict[int, Tensor] = {}
        self.inputs: dict[str, int] = {}
        self._known: dict[Structure, int] = {}
        self._instruction = -1

    def at(self, instruction: int) -> None:
        """Calls from here on are part of this instruction (as `unitp.engine.engine.Progress`)."""
        self._instruction = instruction

    def given(self, name: str, type: Type) -> Later:
        """The promise of an array that every run is given by name."""
        self.inputs[name] = self._value(type)
        return Later(self.inputs[name], type)

    def call(self, op: str, inputs: Sequence[Tensor], attrs: Attrs) -> Later:
        numbers = tuple(self.number(x) for x in inputs)
        if op == RESHAPE and (source := self.calls.get(numbers[0])) is not None and source.what == RESHAPE:
            numbers = source.inputs
        key = (op, numbers, attrs)
        if key not in self._known:
            type = infer(op, tuple(self.types[n] for n in numbers), attrs)
            if op == RESHAPE and type == self.types[numbers[0]]:
                return self._promise(numbers[0])
            self._known[key] = self._value(type)
            self.calls[self._known[key]] = Call(op, numbers, attrs, False, self._instruction)
        return self._promise(self._known[key])

    def host(self, fn: Callable[..., Any], inputs: Sequence[Tensor], type: Type, ordered: bool) -> Later:
        number = self._value(type)
        self.calls[number] = Call(fn, tuple(self.number(x) for x in inputs), (), ordered, self._instruction)
        return self._promise(number)

    def constant(self, x: Tensor) -> Later:
        """The promise of an array that is the same in all runs."""
        key = ("constant", id(x))
        if key not in self._known:
            self._known[key] = self._value((tuple(x.shape), np.dtype(x.dtype).name))
            self.constants[self._known[key]] = x
        return self._promise(self._known[key])

    def number(self, x: Tensor) -> int:
        """The value that a promise or an array is on this tape; arrays are recognised by their content."""
        if isinstance(x, Later):
            return x.number
        if ("constant", id(x)) in self._known:
            return self.constant(x).number
        content = x if isinstance(x, np.ndarray) else x.asnumpy()
        key = ("content", content.shape, content.dtype.name, blake2b(content.tobytes()).digest())
        if key not in self._known:
            self._known[key] = self.constant(array(x) if content is x else x).number
        return self._known[key]

    def clear(self) -> None:
        """Forget all that only compiling needs: 4 MB for a program of thirty layers."""
        for record in (self.types, self.calls, self.constants, self._known):
            record.clear()

    def _value(self, type: Type) -> int:
        self.types.append(type)
        return len(self.types) - 1

    def _promise(self, number: int) -> Later:
        return Later(number, self.types[number])


class Step(NamedTuple):
    """A segment or a host call, ready to run: which slots it reads, fills and lets go."""

    fn: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]
    at: int
    name: str


class Segments:
    """A recording of `runner`, compiled: `run` it on arrays. `ops` are the compiled segments of this engine, by structure, of
    which this has `structures`.
    """

    def __init__(
        self,
        runner: Runner,
        recording: Recording,
        results: Mapping[str, Tensor],
        ops: dict[Structure, Compiled],
        progress: Progress | None,
    ) -> None:
        self.program, self.aliases, self.keys, self.guards = runner.program, runner.aliases, runner.keys, runner.guards
        self.structures: set[Structure] = set()
        self._ops, self._rank, self._progress = ops, runner.rank, progress if progress is not None else Silent()
        self._recording = recording
        self._results = {n: recording.number(x) if x is not None else None for n, x in results.items()}
        needed = self._needed()
        levels = self._levels(needed)
        self._steps = self._scheduled(needed, levels)
        self._initial: Slots = [recording.constants.get(n) for n in range(len(recording.types))]
        self._inputs = tuple(recording.inputs.items())
        recording.clear()

    def run(self, store: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From inputs and states by name to results by name. An error names the rank and the segment."""
        values = self._initial.copy()
        for name, number in self._inputs:
            values[number] = store[name]
        at = self._progress.at
        for step in self._steps:
            at(step.at)
            try:
                made = step.fn(*[values[n] for n in step.inputs])
            except Exception as error:
                if (isinstance(error, UnitpError) and not isinstance(error, InputError)) or from_signal(error):
                    raise
                raise RankError(f"rank {self._rank} failed in {step.name}: {type(error).__name__}: {error}") from error
            if len(step.outputs) == 1:
                values[step.outputs[0]] = made
            else:
                for number, value in zip(step.outputs, made, strict=True):
                    values[number] = value
            for number in step.dead:
                values[number] = None
        return {name: None if number is None else values[number] for name, number in self._results.items()}

    # compiling

    def _needed(self) -> list[int]:
        """Values that results or host calls follow from, in the order recorded."""
        calls = self._recording.calls
        wanted = {n for n in self._results.values() if n is not None}
        wanted |= {n for n, call in calls.items() if not isinstance(call.what, str)}
        for number in sorted(calls, reverse=True):
            if number in wanted:
                wanted.update(calls[number].inputs)
        return [n for n in sorted(calls) if n in wanted]

    def _levels(self, needed: Sequence[int]) -> dict[int, int]:
        """The level of every call: of an operator's segment, or the one after which a host call comes."""
        levels: dict[int, int] = {}
        last = 0
        for number in needed:
            call = self._recording.calls[number]
            level = max((self._ready(n, levels) for n in call.inputs), default=0)
            if call.ordered:
                level = last = max(level, last)
            levels[number] = level
        return levels

    def _ready(self, number: int, levels: Mapping[int, int]) -> int:
        """The first level at which a value may be read."""
        if number not in levels:
            return 0
        return levels[number] + (not isinstance(self._recording.calls[number].what, str))

    def _scheduled(self, needed: Sequence[int], levels: Mapping[int, int]) -> list[Step]:
        calls = self._recording.calls
        groups: list[list[int]] = []
        for level in range(max(levels.values(), default=-1) + 1):
            here = [n for n in needed if levels[n] == level]
            groups.append([n for n in here if isinstance(calls[n].what, str)])
            groups += [[n] for n in here if not isinstance(calls[n].what, str)]
        groups = [group for group in groups if group]
        reads = [_reads(calls, group) for group in groups]
        last = {number: place for place, numbers in enumerate(reads) for number in numbers}
        kept = {*self._recording.constants, *(n for n in self._results.values() if n is not None)}
        steps = []
        for place, (group, inputs) in enumerate(zip(groups, reads, strict=True)):
            outputs = tuple(n for n in group if last.get(n, -1) > place or n in kept)
            dead = tuple(n for n in (*inputs, *outputs) if n not in kept and last.get(n, place) == place)
            first = calls[group[0]]
            if isinstance(first.what, str):
                name = f"instructions {first.at} to {calls[group[-1]].at}"
                fn, inputs = self._segment(group, inputs, outputs)
            else:
                fn, name, inputs, outputs = first.what, f"instruction {first.at}", first.inputs, tuple(group)
            steps.append(Step(fn, inputs, outputs, dead, first.at, name))
        return steps

    def _segment(
        self, group: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> tuple[Callable[..., Any], tuple[int, ...]]:
        """The CachedOp of these calls, shared with segments of the same structure, and its inputs in its order."""
        calls, types = self._recording.calls, self._recording.types
        places = {number: place for place, number in enumerate((*inputs, *group))}
        body = tuple((calls[n].what, tuple(places[i] for i in calls[n].inputs), calls[n].attrs) for n in group)
        key = (tuple(types[n] for n in inputs), body, tuple(places[n] for n in outputs))
        self.structures.add(key)
        if key not in self._ops:
            symbols = [variable(place, type) for place, type in enumerate(key[0])]
            for op, read, attrs in body:
                symbols.append(symbol(str(op), [symbols[i] for i in read], attrs))
            whole = mx.sym.Group([symbols[i] for i in key[2]])
            self._ops[key] = mx.nd.CachedOp(whole), [int(name[1:]) for name in whole.list_inputs()]
        op, order = self._ops[key]
        return op, tuple(inputs[place] for place in order)


def _reads(calls: Mapping[int, Call], group: Sequence[int]) -> tuple[int, ...]:
    """The values from outside that a group of calls reads, each once."""
    inside = set(group)
    return tuple(dict.fromkeys(i for n in group for i in calls[n].inputs if i not in inside))
