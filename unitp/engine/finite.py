"""Find the first instruction whose output is not finite, by checking a run of a program step by step.

NaN and infinities are not finite. Masks consist of -inf, so -inf counts only if no input of the instruction has it and
it does not come from another rank. Instructions that only move numbers are not reported, and outputs that are never read are
not checked. If inputs, states, parameters or constants made of them are the cause, the report names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unitp.engine.constants import Constants
from unitp.engine.engine import NotFinite
from unitp.engine.interpreter import Part, Runner
from unitp.engine.primitives import Primitives, Tensor
from unitp.program.analysis import constants
from unitp.program.instructions import AllReduce, Local, ReduceScatter
from unitp.program.rank import intervals
from unitp.program.text import line


class Strange(NamedTuple):
    """What is not finite in a value: its first such number in words, and whether all such numbers are -inf."""

    words: str
    masked: bool


class Look:
    """Steps that check a run of `runner`; afterwards `found` describes the first output that is not finite, or is None."""

    def __init__(self, runner: Runner, primitives: Primitives, constants: Constants) -> None:
        self.found: NotFinite | None = None
        self._runner, self._p, self._constants = runner, primitives, constants
        self._known: dict[str, Strange | None] = {}
        made = {name for part in runner.parts for name in part.writes}
        self._given = {name: name for part in runner.parts for name in part.reads if name not in made}

    def steps(self) -> list[tuple[int, Callable[[list[Tensor]], None]]]:
        return [(part.number, partial(self._step, part)) for part in self._runner.parts if part.step is not None]

    def _step(self, part: Part, values: list[Tensor]) -> None:
        assert part.step is not None
        if self.found is None:  # before the step, which may write into a state
            for name in part.reads:
                if name not in self._known:
                    self._known[name] = self._look(name, values)
        with np.errstate(all="ignore"):
            part.step(values)
        instruction = self._runner.program.instructions[part.number]
        for name in part.writes if self.found is None else ():
            strange = self._known[name] = self._look(name, values)
            if not isinstance(instruction, Local | AllReduce | ReduceScatter):
                if instruction.input in self._given:
                    self._given[name] = self._given[instruction.input]
            elif strange is not None and not (strange.masked and self._masks(part)):
                self.found = self._describe(part, name, strange)
                return

    def _masks(self, part: Part) -> bool:
        """Say whether an instruction may read -inf, on this rank or on another."""
        local = isinstance(self._runner.program.instructions[part.number], Local)
        return not local or any(known is not None and known.masked for known in map(self._known.get, part.reads))

    def _describe(self, part: Part, name: str, strange: Strange) -> NotFinite:
        instruction = self._runner.program.instructions[part.number]
        what = [f'"{name}" has {strange.words}']
        what += [f"it reads {words}" for n in part.reads if n in self._given for words in self._faults(n)]
        operator = getattr(instruction, "op", "") or str(type(instruction).__struct_config__.tag)
        return NotFinite(part.number, line(instruction), operator, "; ".join(what))

    def _faults(self, name: str) -> Iterator[str]:
        """Yield a description of the input or state `name`, or of each parameter of a constant, that is not finite."""
        program, known, name = self._runner.program, self._known[name], self._given[name]
        if known is None:
            return
        kinds = {"input": program.inputs, "state": [old for old, _ in program.states]}
        for kind, names in kinds.items():
            if name in names:
                yield f'{kind} "{name}", which has {known.words}'
                return
        parameters = self._parameters(name)
        found = [(p, self._strange(p, self._constants[p])) for p in parameters]
        for parameter, strange in found:
            if strange is not None:
                yield f'parameter "{parameter}", which has {strange.words}'
        if not any(strange for _, strange in found):
            made = ", ".join(f'"{parameter}"' for parameter in parameters)
            yield f'"{name}", made of {made}, which has {known.words}'

    def _parameters(self, name: str) -> list[str]:
        """Return the names of the parameters that a constant (or a packed operand) is computed from."""
        program, name = self._runner.program, self._runner.operands.get(name, (name,))[0]
        wanted = constants(program)[name]
        return [p for p in program.parameters if p in wanted]

    def _look(self, name: str, values: list[Tensor]) -> Strange | None:
        if name in self._runner.operands:
            parameter = self._runner.operands[name][0]
            return self._strange(parameter, self._constants[parameter])
        return self._strange(name, values[self._runner.slots[name]])

    def _strange(self, name: str, value: Tensor) -> Strange | None:
        """Return what is not finite in a value of the program, or None if all elements are finite."""
        if value is None or not self._runner.program.values[name].dtype.startswith("float"):
            return None
        array: npt.NDArray[Any] = np.asarray(self._p.to_numpy(value))
        wrong = ~np.isfinite(array)
        if not wrong.any():
            return None
        masked = bool((array[wrong] == -np.inf).all())
        here = np.argwhere(wrong if masked else wrong & (array != -np.inf))[0]
        starts = [start for start, _ in intervals(self._runner.program, name, self._runner.rank)]
        at = ", ".join(str(int(i) + start) for i, start in zip(here, starts, strict=True))
        number = array[tuple(here)]
        return Strange(f"{'NaN' if np.isnan(number) else number}{f' at [{at}]' if at else ''}", masked)
