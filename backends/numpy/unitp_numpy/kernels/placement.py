"""Decides where the values of a program lie in memory when it is prepared, so that a decode step allocates nothing.

    known   parameters, what follows from them, and results of rows: places in `Scratch`, which are reused after the last reader
    bound   states, rows written into them in place, and views of both: an offset in the state of the current bank
    free    inputs, and results of steps in NumPy: their address is written into the table before the rows that read them

A reshape, or a transposition that moves nothing, is a view, which costs nothing at run time. If a step in NumPy may return a
view of the result of a row, the place of that result is kept as long as the view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unitp.engine.interpreter import Part, Runner
from unitp.engine.steps import Slots, Step
from unitp.program.analysis import may_share
from unitp.program.instructions import AllReduce, Instruction, Local
from unitp.program.rank import context, local_shape
from unitp_numpy.kernels import rows as kernels
from unitp_numpy.kernels.library import Run
from unitp_numpy.kernels.scratch import Pool, Scratch
from unitp_numpy.kernels.table import Array, Row, address, contiguous
from unitp_numpy.stored import product

Runs = Mapping[str, Run]
"""The kernels of each type."""
Reduce = Callable[[Array, Array, str, str], None]
"""`reduce(x, out, axis, reduction)` writes the sum or maximum of x over an axis into `out`."""


class Bound(NamedTuple):
    """A value that lies in a state, `offset` bytes after its beginning."""

    state: str
    offset: int


class Placed(NamedTuple):
    """The row of an instruction (`number`), with the names of its inputs ("" for an absent one) and its output, and its dtype."""

    number: int
    row: Row
    inputs: tuple[str, ...]
    output: str
    dtype: str


class Placement:
    """The places of a program's values, and its rows and steps in order."""

    def __init__(self, runner: Runner, pool: Pool, runs: Runs, reduce: Reduce | None) -> None:
        """Place all values. `reduce` is None if there is no axis to reduce over."""
        self.runner, self.program, self._runs, self._reduce = runner, runner.program, runs, reduce
        self._scratch = Scratch(pool)
        names = (*runner.constants, *runner.operands)
        self.known: dict[str, Array] = {n: x for n in names if (x := runner.initial[runner.slots[n]]) is not None}
        self.bound: dict[str, Bound] = {}
        self.written: dict[str, str] = {}
        """By new state that rows write in place, the old state."""
        self._forms: dict[str, Array] = {}
        self._views: dict[str, tuple[int, Step]] = {}
        for old, _ in self.program.states:
            shape = local_shape(self.program, old, runner.rank)
            if 0 not in shape:
                self._forms[old] = np.empty(shape, self.program.values[old].dtype)
                self.bound[old] = Bound(old, 0)
        self.rows: list[Placed] = []
        self.order: list[int | tuple[int, Step]] = []
        """The rows, by their number in the table, and the steps in NumPy, with the number of their instruction."""
        self.dead: dict[int, list[int]] = {}
        """By the number of an instruction, the slots that nothing reads after it."""
        self._taken: dict[str, tuple[int, int]] = {}
        self._computed: set[str] = set()
        self._roots, self._last = _lifetimes(runner)
        for position, part in enumerate(runner.parts):
            if part.step is not None:
                self._place(part, part.step)
            self._release(position, part.number)
        for name in (*self.program.outputs, *(new for _, new in self.program.states), *runner.watched):
            self._materialise(name)
        self.first = runner.parts[0].number if runner.parts else 0
        self._forms.clear()

    def scratch_outputs(self) -> set[str]:
        """Return the outputs that the next run overwrites."""
        return {n for n in self.program.outputs if not self._computed.isdisjoint(self._roots.get(n, ()))}

    def lies(self, name: str) -> bool:
        """Say whether a value has a known place, or one in a state of the bank."""
        return name in self.known or name in self.bound

    def initial(self) -> Slots:
        """Return the content of the slots at the start of a run: constants, and the places of results of rows."""
        values = list(self.runner.initial)
        for name, array in self.known.items():
            values[self.runner.slots[name]] = array
        return values

    # one instruction

    def _place(self, part: Part, step: Step) -> None:
        instruction = self.program.instructions[part.number]
        if self._view(part, step, instruction) or self._row(part, instruction):
            return
        for name in part.reads:
            self._materialise(name)
        into = self._reduction(part, instruction) or self._product(part, instruction)
        self.order.append((part.number, into or step))

    def _view(self, part: Part, step: Step, instruction: Instruction) -> bool:
        """Place the result of an instruction that is a view of its input. False: it is not."""
        if not isinstance(instruction, Local) or not may_share(instruction) or len(part.writes) != 1:
            return False
        name, made = part.reads[0], part.writes[0]
        source = self._form(name)
        if source is None or any(n not in self.known for n in part.reads[1:]) or part.number in self.runner.guards:
            return False
        values: Slots = [None] * len(self.runner.slots)
        for read in part.reads:
            values[self.runner.slots[read]] = self._form(read)
        step(values)
        view = values[self.runner.slots[made]]
        if not np.may_share_memory(view, source):
            row = kernels.move(source) if name in self.known and source.dtype.name in self._runs else None
            return row is not None and self._add(part, row, (name,))
        if name in self.bound:
            at = self.bound[name]
            self.bound[made] = Bound(at.state, at.offset + address(view) - address(source))
            self._forms[made] = view
            self._views[made] = (part.number, step)
        else:
            self.known[made] = view
        return True

    def _row(self, part: Part, instruction: Instruction) -> bool:
        """Add the row of an instruction that a kernel carries out. False: no kernel does."""
        if not isinstance(instruction, Local) or part.number in self.runner.guards:
            return False
        dtype = self.program.values[instruction.outputs[0]].dtype
        if dtype not in self._runs:
            return False
        names = iter(part.reads)
        inputs = [next(names) if name else "" for name in instruction.inputs]
        forms = [self._stand_in(name) if name else None for name in inputs]
        made = part.writes[0]
        if made in self.runner.in_place:
            state, rows, starts = forms
            if state is None or rows is None or starts is None or inputs[0] not in self.bound:
                return False
            dim = context(self.program, instruction, self.runner.rank).attrs.dim(state.ndim)
            row = kernels.update(state, rows, starts, dim)
            if row is None:
                return False
            self.bound[made], self._forms[made] = self.bound[inputs[0]], state
            self.written[made] = inputs[0]
            return self._add(part, row, inputs)
        row = kernels.row_of(context(self.program, instruction, self.runner.rank), forms)
        return row is not None and self._add(part, row, inputs)

    def _add(self, part: Part, row: Row, inputs: Sequence[str]) -> bool:
        """Add the row of an instruction with one output, which gets a place unless it lies in a state. Return True."""
        made = part.writes[0]
        dtype = self.program.values[made].dtype
        if made not in self.bound:
            self._take(made, dtype)
        self.order.append(len(self.rows))
        self.rows.append(Placed(part.number, row, tuple(inputs), made, dtype))
        return True

    def _product(self, part: Part, instruction: Instruction) -> Step | None:
        """Return a step that writes a product of many rows, by BLAS, to a place of its own; None if the instruction is not one."""
        if not isinstance(instruction, Local) or instruction.op != "MatMul" or len(part.reads) != 2:
            return None
        (name, weight), (made,) = part.reads, part.writes
        w, dtype = self.known.get(weight), self.program.values[made].dtype
        stored = context(self.program, instruction, self.runner.rank).stored
        if w is None or w.ndim != 2 or self.program.values[name].dtype != dtype:
            return None
        if not stored and (w.dtype.kind != "f" or w.dtype != dtype):
            return None
        (k, n), x, slot = w.shape, self.known.get(name), self.runner.slots[name]
        if x is not None and not contiguous(x):
            return None
        out, dead = self._take(made, dtype).reshape(-1, n), self.dead.setdefault(part.number, [])

        def multiply(values: Slots) -> None:
            given = (values[slot] if x is None else x).reshape(-1, k)
            if stored:
                product(given, w.T, stored, out)
            else:
                np.dot(given, w, out=out)
            for done in dead:
                values[done] = None

        return multiply

    def _reduction(self, part: Part, instruction: Instruction) -> Step | None:
        """Return a step that writes the all-reduce of a known value to a place of its own; None if the instruction is not one."""
        if not isinstance(instruction, AllReduce):
            return None
        (name,), (made,) = part.reads, part.writes
        x = self.known.get(name)
        if self._reduce is None or x is None or not contiguous(x) or x.dtype.kind != "f":
            return None
        out = self._take(made, x.dtype.name)
        reduce, axis, reduction = self._reduce, instruction.axis, instruction.reduction
        return lambda values: reduce(x, out, axis, reduction)

    # where values lie

    def _form(self, name: str) -> Array | None:
        """Return the array of a known value, or an array with the shape and strides of a bound one; None for a free value."""
        return self.known[name] if name in self.known else self._forms.get(name)

    def _stand_in(self, name: str) -> Array | None:
        """Return an array with the shape and strides of a value. A free value is contiguous by the time that a row reads it."""
        found = self._form(name)
        if found is not None or name in self.runner.constants or name in self.runner.operands:
            return found  # None: this rank holds no part of the constant
        shape = local_shape(self.program, name, self.runner.rank)
        return np.empty(shape, self.program.values[name].dtype) if 0 not in shape else None

    def _take(self, name: str, dtype: str) -> Array:
        shape = local_shape(self.program, name, self.runner.rank)
        self.known[name], self._taken[name] = self._scratch.take(shape, dtype)
        self._computed.add(name)
        return self.known[name]

    def _release(self, position: int, number: int) -> None:
        """Give back the places of values that no later part reads, and note the slots that a run may then empty."""
        for name in self._last[position]:
            if name in self._taken:
                self._scratch.give(self._taken.pop(name))
            elif not self.lies(name) and name in self.runner.slots:
                self.dead.setdefault(number, []).append(self.runner.slots[name])

    def _materialise(self, name: str) -> None:
        """Make a view of a state in every run, since a step in NumPy reads it."""
        if name in self._views:
            self.order.append(self._views.pop(name))


def _lifetimes(runner: Runner) -> tuple[dict[str, set[str]], list[list[str]]]:
    """Return the lifetimes of values.

    For each value: the values whose memory it may share, itself among them. For each part: the values that nothing reads after it.
    """
    program = runner.program
    roots: dict[str, set[str]] = {}
    for part in runner.parts:
        shared = may_share(program.instructions[part.number])
        found = set().union(*(roots.get(name, set()) for name in part.reads)) if shared else set()
        for name in part.writes:
            roots[name] = {*found, name}
    kept = set().union(
        *(roots.get(n, set()) for n in (*program.outputs, *(new for _, new in program.states), *runner.watched))
    )
    last: list[list[str]] = []
    seen = set(kept)
    for part in reversed(runner.parts):
        used = set().union(*(roots.get(name, set()) for name in (*part.reads, *part.writes)))
        last.append(sorted(used - seen))
        seen |= used
    return roots, last[::-1]
