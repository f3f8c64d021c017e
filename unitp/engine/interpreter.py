"""A program on one rank, as a list of closures: everything that can be known before the arrays come is decided once.

A step reads values from numbered slots, calls an implementation with its context already bound, stores the results, and
drops values after their last reader, so that peak memory is as low as liveness allows. Instructions that depend on parameters
alone run once, in `fold`. Values of local size zero are None, and an implementation gets them only if an output is not empty
(a sum over nothing). A state whose only reader is the TensorScatter that replaces it is written in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from unitp.engine import operators as decompositions
from unitp.engine.constants import Constants, Key
from unitp.engine.engine import Progress, Silent
from unitp.engine.exchange import Exchange
from unitp.engine.guards import guarded, guarded_update, guards, watched
from unitp.engine.overrides import Implementation, Overrides, bound
from unitp.engine.primitives import Collectives, Primitives, Tensor
from unitp.engine.steps import Slots, Step, Steps, carry_out, step_of
from unitp.errors import RankError, UnitpError, from_signal
from unitp.graph.ops import operator
from unitp.program.analysis import constants, dead_after, in_place, may_share
from unitp.program.instructions import Instruction, Local, Program, reads, writes
from unitp.program.rank import Context, context, local_shape
from unitp.program.text import line


class Part(NamedTuple):
    """An instruction on this rank: what it reads and writes, by the names of slots. `step` is None if it does nothing."""

    number: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    step: Step | None


class Runner:
    """One rank's part of a program. `fold` it with the rank's constants, then `run` it any number of times."""

    def __init__(
        self,
        program: Program,
        rank: int,
        primitives: Primitives,
        overrides: Overrides,
        collectives: Collectives,
        progress: Progress | None = None,
    ) -> None:
        self.program, self.rank = program, rank
        self._p, self._overrides = primitives, overrides
        self._exchange = Exchange(program, rank, primitives, collectives)
        self._progress: Progress = progress if progress is not None else Silent()
        self._writer = {name: i for i, instruction in enumerate(program.instructions) for name in writes(instruction)}
        self._keys = _constant_keys(program)
        self.in_place = in_place(program)
        self.guards = guards(program)
        self.watched = watched(program, self.guards)
        self.slots: dict[str, int] = {}
        self.constants: dict[str, Key] = {}
        self.operands: dict[str, tuple[str, bool]] = {}
        self.parts = self._build()
        self._steps = [(part.number, part.step) for part in self.parts if part.step is not None]
        results = (*program.outputs, *(new for _, new in program.states), *self.watched)
        self._fed = [(name, self._slot(name)) for name in (*program.inputs, *(old for old, _ in program.states))]
        self._results = [(name, self._slot(name)) for name in dict.fromkeys(results)]
        self.initial: Slots = [None] * len(self.slots)
        self.aliases = _aliases(program)
        self.keys = frozenset(self.constants.values())

    @property
    def recording(self) -> bool:
        """Whether the begin of each instruction is recorded."""
        return self._progress.recording

    # running

    def fold(self, constants: Constants) -> None:
        """Take the parameters, and compute (or find) what follows from them alone."""
        self.initial = [None] * len(self.slots)
        for slot, (name, transposed) in self.operands.items():
            self.initial[self.slots[slot]] = constants.operand(name, transposed)
        scratch: dict[str, Tensor] = {}
        for name, key in self.constants.items():
            made = partial(self._fold_value, name, constants, scratch)
            self.initial[self.slots[name]] = constants.keep(key, made)

    def run(
        self,
        store: Mapping[str, Tensor],
        steps: Steps | None = None,
        initial: Sequence[Tensor] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        """Run on inputs and states, by the names that the program reads. Return outputs, new states, and places to check (`guards`).

        steps      replace the steps of the program, with the numbers of their instructions
        initial    replaces the content of the slots at the start (by a tape's promises of the constants)
        progress   replaces the progress of this rank

        Raises RankError for an instruction that fails.
        """
        values = list(self.initial if initial is None else initial)
        for name, slot in self._fed:
            values[slot] = store[name]
        carry_out(self._steps if steps is None else steps, values, progress or self._progress, self._failed)
        return {name: values[slot] for name, slot in self._results}

    def _failed(self, number: int, error: Exception) -> RankError:
        instruction = self.program.instructions[number]
        found = [f"{n}: {self._describe(n)}" for n in reads(instruction)]
        return RankError(
            f"rank {self.rank} failed in instruction {number}, {line(instruction)}: {type(error).__name__}: {error}",
            hint=f"Local inputs: {'; '.join(found)}.",
        )

    def _describe(self, name: str) -> str:
        return f"{self.program.values[name].dtype}{list(local_shape(self.program, name, self.rank))}"

    # constants

    def _fold_value(self, name: str, constants: Constants, scratch: dict[str, Tensor]) -> Tensor:
        """Return a value that depends on parameters only."""
        if name not in self._writer:
            return constants[name]
        if self._keys[name] in constants:
            return constants[self._keys[name]]
        if name not in scratch:
            number = self._writer[name]
            instruction = self.program.instructions[number]
            inputs = [self._fold_value(n, constants, scratch) for n in reads(instruction)]
            fn = self._function(instruction)
            try:
                made: Any = fn(*inputs) if fn else None
            except Exception as error:
                if isinstance(error, UnitpError) or from_signal(error):
                    raise
                raise self._failed(number, error) from error
            outputs = writes(instruction)
            scratch.update(zip(outputs, made if len(outputs) > 1 and fn else (made,) * len(outputs), strict=True))
        return scratch[name]

    # building

    def _slot(self, name: str) -> int:
        return self.slots.setdefault(name, len(self.slots))

    def _build(self) -> list[Part]:
        parts = []
        dead = self._last_reads()
        for number, instruction in enumerate(self.program.instructions):
            if writes(instruction)[0] in self._keys:
                continue
            fn = self._function(instruction)
            names, made = tuple(self._arguments(instruction)), writes(instruction)
            inputs, outputs = [self._slot(name) for name in names], [self._slot(name) for name in made]
            step = step_of(fn, inputs, outputs, [self._slot(n) for n in dead[number]]) if fn is not None else None
            parts.append(Part(number, names, made, step))
        for name in (*self.program.outputs, *(new for _, new in self.program.states), *self.watched):
            if name in self._keys:
                self._constant(name)
        return parts

    def _arguments(self, instruction: Instruction) -> list[str]:
        """Return the slots that an instruction reads; notes constants and packed operands on the way."""
        names = list(reads(instruction))
        packed = operator(instruction.op).packed if isinstance(instruction, Local) else None
        if packed is not None and (found := self._parameter(names[packed])) is not None:
            names[packed] = f"{found[0]} {'transposed' if found[1] else 'as stored'}"
            self.operands[names[packed]] = found
        for name in names:
            if name in self._keys:
                self._constant(name)
        return names

    def _constant(self, name: str) -> None:
        self._slot(name)
        self.constants[name] = self._keys[name]

    def _parameter(self, name: str) -> tuple[str, bool] | None:
        """Return the two-dimensional parameter that a value is, and whether the value is its transpose."""
        if name not in self._keys or len(self.program.values[name].shape) != 2:
            return None
        if name not in self._writer:
            return name, False
        made = self.program.instructions[self._writer[name]]
        if not isinstance(made, Local) or (permutation := operator(made.op).permutation) is None:
            return None
        source = made.inputs[0]
        return (
            None
            if source in self._writer
            else (source, permutation(operator(made.op).attributes(made.attrs), 2) == (1, 0))
        )

    def _function(self, instruction: Instruction) -> Callable[..., Any] | None:
        """Return what an instruction calls with its present inputs; None if it has nothing to do on this rank."""
        if not isinstance(instruction, Local):
            return self._exchange.step(instruction)
        ctx = context(self.program, instruction, self.rank)
        if all(0 in shape for shape in ctx.outputs):
            return None
        places = self.guards.get(self._writer[instruction.outputs[0]])
        if instruction.outputs[0] in self.in_place:
            update, dim = self._p.update, ctx.attrs.dim(len(ctx.outputs[0]))
            if places:
                return guarded_update(self._p, dim, places[0])
            return lambda past, rows, starts: update(past, rows, starts, dim)
        hollow = any(shape is not None and 0 in shape for shape in ctx.inputs)
        override = None if hollow else self._overrides.get(instruction.op, ctx.dtype)
        fn = _bound(override or decompositions.get(instruction.op), self._p, ctx, instruction.inputs)
        return guarded(self._p, fn, instruction, places) if places else fn

    def _last_reads(self) -> list[list[str]]:
        """Return for each instruction the values whose last reader it is."""
        return dead_after(self.program, {*self._keys, *self.watched})


def _bound(fn: Implementation, p: Primitives, ctx: Context, inputs: Sequence[str]) -> Callable[..., Any]:
    """Return `fn` bound to its context; absent inputs keep their place as None."""
    call = bound(fn, p, ctx)
    if all(inputs):
        return call
    present = [i for i, name in enumerate(inputs) if name]
    if present == list(range(len(present))):
        return call
    gaps = [None] * len(inputs)

    def placed(*given: Tensor) -> Any:
        full: list[Tensor] = gaps.copy()
        for place, value in zip(present, given, strict=True):
            full[place] = value
        return call(*full)

    return placed


def _constant_keys(program: Program) -> dict[str, Key]:
    """Return the values that depend on parameters only, each with a key that says how it is made (equal on all ranks)."""
    keys: dict[str, Key] = {name: name for name in program.parameters}
    fixed = constants(program)
    for instruction in program.instructions:
        if not fixed.keys() >= set(writes(instruction)):
            continue
        names = reads(instruction)
        layouts = tuple(program.values[name].layout for name in (*names, *writes(instruction)))
        for number, name in enumerate(writes(instruction)):
            keys[name] = (*recipe(instruction), tuple(keys[n] for n in names), layouts, number)
    return keys


def recipe(instruction: Instruction) -> tuple[Any, ...]:
    """Return what an instruction does, without the names of its values."""
    if isinstance(instruction, Local):
        attrs = tuple(sorted((name, repr(value)) for name, value in instruction.attrs.items()))
        present = tuple(bool(name) for name in instruction.inputs)
        return instruction.op, attrs, present, tuple(sorted(instruction.splits.items()))
    fields = tuple(getattr(instruction, f) for f in instruction.__struct_fields__ if f not in ("input", "output"))
    return type(instruction).__name__, fields


def _aliases(program: Program) -> set[str]:
    """Return the outputs that may share memory with a state, and so change at the next call."""
    found = {name for pair in program.states for name in pair}
    for instruction in program.instructions:
        if may_share(instruction) and found & set(reads(instruction)):
            found |= set(writes(instruction))
    return found & set(program.outputs)
