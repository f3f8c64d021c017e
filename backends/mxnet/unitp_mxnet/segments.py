"""A program as compiled segments: one run of it is recorded on promises, and cut where the host must act.

A recording has calls of MXNet operators, and *host* calls between them (collectives, writes into states, sorting). The
segmenter (`unitp.engine.segments.levels`) groups operators between which there is no host call; each group becomes a
CachedOp. Equal calls are recorded once (the rotary angles of all layers). Segments of equal structure share a CachedOp (as the
layers of a model do), so that memory and compile time do not depend on depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, final

import numpy as np

from unitp.engine.base import BaseEngine, CompiledProgram
from unitp.engine.interpreter import Runner
from unitp.engine.segments import Schedule, Structure, cut, levels, structure
from unitp_mxnet.operators import Later, Tensor, Type, array, infer, mx, symbol, variable

Attrs = tuple[tuple[str, str], ...]

Form = Structure[Type, tuple[str, Attrs]]

RESHAPE = "_np_reshape"

Compiled = tuple[Any, list[int]]
"""A CachedOp, and the place of each of its inputs among those of the segment."""


class Call(NamedTuple):
    """A recorded call with one result: of an operator by name, or of a host function. `at`: the instruction that it belongs to."""

    what: str | Callable[..., Any]
    reads: tuple[int, ...]
    attrs: Attrs
    ordered: bool
    at: int
    number: int

    @property
    def writes(self) -> tuple[int, ...]:
        return (self.number,)

    @property
    def host(self) -> bool:
        return not isinstance(self.what, str)


class Recording:
    """The tape of one program: take promises from `given`, run the program on them, then call `compile`."""

    recording = False
    """The times at which instructions begin are not recorded (see `unitp.engine.engine.Progress`)."""

    def __init__(self) -> None:
        self.types: list[Type] = []
        self.calls: dict[int, Call] = {}
        self.constants: dict[int, Tensor] = {}
        self.inputs: dict[str, int] = {}
        self._known: dict[tuple[Any, ...], int] = {}
        self._instruction = -1

    def at(self, instruction: int) -> None:
        """Note that the calls from here on belong to this instruction (see `unitp.engine.engine.Progress`)."""
        self._instruction = instruction

    def given(self, name: str, type: Type) -> Later:
        """Return the promise of an array that the caller of every run gives by name."""
        self.inputs[name] = self._value(type)
        return Later(self.inputs[name], type)

    def call(self, op: str, inputs: Sequence[Tensor], attrs: Attrs) -> Later:
        numbers = tuple(self.number(x) for x in inputs)
        if op == RESHAPE and (source := self.calls.get(numbers[0])) is not None and source.what == RESHAPE:
            numbers = source.reads
        key = (op, numbers, attrs)
        if key not in self._known:
            type = infer(op, tuple(self.types[n] for n in numbers), attrs)
            if op == RESHAPE and type == self.types[numbers[0]]:
                return self._promise(numbers[0])
            made = self._known[key] = self._value(type)
            self.calls[made] = Call(op, numbers, attrs, False, self._instruction, made)
        return self._promise(self._known[key])

    def host(self, fn: Callable[..., Any], inputs: Sequence[Tensor], type: Type, ordered: bool) -> Later:
        number = self._value(type)
        self.calls[number] = Call(fn, tuple(self.number(x) for x in inputs), (), ordered, self._instruction, number)
        return self._promise(number)

    def constant(self, x: Tensor) -> Later:
        """Return the promise of an array that is the same in all runs."""
        key = ("constant", id(x))
        if key not in self._known:
            self._known[key] = self._value((tuple(x.shape), np.dtype(x.dtype).name))
            self.constants[self._known[key]] = x
        return self._promise(self._known[key])

    def number(self, x: Tensor) -> int:
        """Return the number of the value that a promise or an array is on this tape; equal arrays are one value."""
        if isinstance(x, Later):
            return x.number
        if ("constant", id(x)) in self._known:
            return self.constant(x).number
        content = x if isinstance(x, np.ndarray) else x.asnumpy()
        key = ("content", content.shape, content.dtype.name, blake2b(content.tobytes()).digest())
        if key not in self._known:
            self._known[key] = self.constant(array(x) if content is x else x).number
        return self._known[key]

    def _value(self, type: Type) -> int:
        self.types.append(type)
        return len(self.types) - 1

    def _promise(self, number: int) -> Later:
        return Later(number, self.types[number])


@final
class RecordedProgram(CompiledProgram):
    """A compiled recording of `runner`, which produced `results`."""

    def __init__(self, engine: BaseEngine, runner: Runner, recording: Recording, results: Mapping[str, Tensor]) -> None:
        self._results = {n: recording.number(x) if x is not None else None for n, x in results.items()}
        wanted = {number for number in self._results.values() if number is not None}
        calls = [recording.calls[number] for number in sorted(recording.calls)]
        used: set[Form] = set()
        self._schedule = Schedule(engine.rank, engine.progress)
        for segment in cut(levels(calls, wanted), wanted, recording.constants.keys()):
            first = segment.nodes[0]
            if isinstance(first.what, str):
                form = structure(segment, recording.types.__getitem__, _what)
                used.add(form)
                if form not in engine.compiled:
                    engine.compiled[form] = _compiled(form)
                fn, order = engine.compiled[form]
                inputs = tuple(segment.inputs[place] for place in order)
            else:
                fn, inputs = first.what, first.reads
            self._schedule.add([call.at for call in segment.nodes], fn, inputs, segment.outputs, segment.dead)
        super().__init__(runner, used)
        self._initial: list[Tensor] = [recording.constants.get(n) for n in range(len(recording.types))]
        self._inputs = tuple(recording.inputs.items())

    def run(self, store: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = self._initial.copy()
        for name, number in self._inputs:
            values[number] = store[name]
        self._schedule.run(values)
        return {name: None if number is None else values[number] for name, number in self._results.items()}

    def settle(self) -> None:
        """Do nothing: collectives are counted when they are called."""


def _what(call: Call) -> tuple[str, Attrs]:
    """Return the operator and the attributes of a call, without the names of its values."""
    return str(call.what), call.attrs


def _compiled(form: Form) -> Compiled:
    """Return the CachedOp of all segments of this structure, with the order of its inputs."""
    symbols = [variable(place, type) for place, type in enumerate(form.kinds)]
    for (op, attrs), read in form.steps:
        symbols.append(symbol(op, [symbols[i] for i in read], attrs))
    whole = mx.sym.Group([symbols[i] for i in form.outputs])
    return mx.nd.CachedOp(whole), [int(name[1:]) for name in whole.list_inputs()]
