"""The planning problem, as a value: a price for each choice of a variable, and a price for each pair of neighbours.

    minimise   sum_p weight_p * ( sum_n work(n, a_n) + sum_(u -> v) convert(out(u, a_u), in(v, a_v)) )

Besides these seconds, `holding` counts the bytes that all ranks hold: parameters, states, and copies of parameters.

`posed` reads a problem off a graph. Passes (`pins.apply`, `Problem.relaxed`, `one_layout`) return another problem, and share all
tables that they do not change. They keep the variables and their choices, so a choice means the same in all these problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from unitp.graph.graph import Graph
from unitp.layout import Layout
from unitp.mesh import Mesh
from unitp.planner.choices.candidates import Assignment, Candidates
from unitp.planner.prices.work import Prices
from unitp.planner.problem.held_bytes import Holding
from unitp.planner.problem.structure import Sides, Structure, charge
from unitp.planner.problem.variables import SHARED, Copied, Variable
from unitp.planner.solve.elimination import evaluate
from unitp.planner.solve.identity_cache import Memo
from unitp.plans import Phase

Table = npt.NDArray[np.float64]


def posed(
    graph: Graph,
    mesh: Mesh,
    phases: Sequence[Phase],
    candidates: Candidates,
    prices: Prices,
    *,
    copies: Mapping[tuple[str, str, str], int] | None = None,
) -> Problem:
    """Return the problem of planning a graph in these phases, without pins, and with prices that are not bounds yet.

    copies   (kind, name, phase) of variables that may decide to make this many converted copies, for all readers that require them
    """
    made = Structure(graph, mesh, phases, candidates, prices, copies=copies)
    for table in (*made.unary, *made.pairs.values(), *made.holding.unary.values(), *made.holding.pairs.values()):
        table.setflags(write=False)
    return Problem(made, tuple(made.unary), MappingProxyType(made.pairs), made.holding)


@dataclass(frozen=True, eq=False)
class Problem:
    """Variables with `unary` prices (seconds by choice) and `pairs` (seconds by two choices), as `unitp.planner.solve` takes them.

    A program makes a conversion once even if several readers share it. `pairs` charges it to each reader in full, and after
    `relaxed` in part; `value` charges it once. `full` is the problem before `relaxed`, None for one that is not relaxed.
    """

    structure: Structure
    unary: Sequence[Table]
    pairs: Mapping[tuple[int, int], Table]
    holding: Holding
    full: Problem | None = None

    def relaxed(self) -> Problem:
        """Return the problem with lower bounds for prices: a cost that several readers may share is divided among them.

        Apply pins first. `value`, `held` and `seconds` do not change.
        """
        unary, pairs, holding = list(self.unary), dict(self.pairs), self.holding.copy()
        for shared in self.structure.shared:
            part = self._least_part(shared.source, shared.value)
            if part < 1.0:
                table = self.memo.times(shared.table, part - 1.0)
                if self.is_fixed(shared.source):
                    holding.add(shared.source, shared.reader, table)
                else:
                    charge(self.memo, unary, pairs, shared.source, shared.reader, table)
        return Problem(self.structure, tuple(unary), MappingProxyType(pairs), holding, self)

    def with_unary(self, unary: Sequence[Table]) -> Problem:
        """Return the problem with other prices of single choices."""
        return replace(self, unary=tuple(unary))

    def with_pairs(self, pairs: Mapping[tuple[int, int], Table]) -> Problem:
        """Return the problem with other prices of pairs of choices. What `value` says of a choice does not change."""
        return replace(self, pairs=MappingProxyType(dict(pairs)), full=self.full or self)

    def worth_copying(self, *, forced: bool = False) -> dict[tuple[str, str, str], int]:
        """Return the variables whose readers might share conversions, with the most copies that two or more could share.

        A parameter is assumed to be held in the layout that most readers share; `forced`: it may be held in any.
        """
        found = {}
        for number, value in dict.fromkeys((shared.source, shared.value) for shared in self.structure.shared):
            variable = self.variables[number]
            fixed = forced and self.is_fixed(number) and self.structure.readers(value, number) > 1
            if (fixed or self._least_part(number, value) < 1.0) and variable.kind in ("value", "input", "parameter"):
                held = self.is_fixed(number) and not self._is_pinned(number) and not forced
                found[variable.kind, variable.name, variable.phase] = self.structure.readers(value, number) // 2 - held
        return found

    def _least_part(self, number: int, value: str) -> float:
        """Return the smallest fraction of a shared conversion that one reader pays when all who share it pay alike.

        At most k - 1 of k readers share a conversion: if all did, the value would be held in that layout. A parameter is held
        in the layout that most readers require, so at most half of them share a copy. Neither is true of a pinned layout, nor
        of a state, whose layout is the same in all phases.
        """
        variable = self.variables[number]
        readers = self.structure.readers(value, number)
        if variable.copies:
            return 1.0
        if variable.kind == "state" or self._is_pinned(number):
            return 1 / max(readers, 1)
        return 1 / max(readers // 2 if self.is_fixed(number) else readers - 1, 1)

    def _is_pinned(self, number: int) -> bool:
        return not np.isfinite(self.unary[number]).all()

    def value(self, choice: Sequence[int], lifted: Mapping[int, Table] | None = None) -> float:
        """Return the seconds that the programs of a choice take: a shared conversion counts once.

        lifted   prices that replace `unary` of some variables, to ask about a choice that a pin forbids
        """
        full = self.full or self
        unary = [lifted.get(i, own) for i, own in enumerate(full.unary)] if lifted else full.unary
        return evaluate(unary, full.pairs, choice) - sum(
            s for _, home, s in self.structure.repeated(choice) if home != SHARED
        )

    def held(self, choice: Sequence[int]) -> float:
        """Return the bytes that all ranks together hold under a choice: a shared copy counts once."""
        return (self.full or self).holding.value(choice) - sum(
            held for _, home, held in self.structure.repeated(choice) if home == SHARED
        )

    def seconds(self, choice: Sequence[int]) -> dict[str, float]:
        """Return the seconds that one call of each phase takes under a choice of every variable."""
        weight = {p.name: p.weight for p in self.phases}
        total = dict.fromkeys(weight, 0.0)
        full = self.full or self
        for variable, table, chosen in zip(self.variables, full.unary, choice, strict=True):
            if variable.phase != SHARED:
                total[variable.phase] += float(table[chosen])
        for (a, b), table in full.pairs.items():
            home = self.variables[a].phase or self.variables[b].phase
            if home != SHARED:
                total[home] += float(table[choice[a], choice[b]])
        for _, home, twice in self.structure.repeated(choice):
            if home != SHARED:
                total[home] -= twice
        return {name: total[name] / weight[name] for name in weight}

    # what the variables are about

    @property
    def graph(self) -> Graph:
        return self.structure.graph

    @property
    def mesh(self) -> Mesh:
        return self.structure.mesh

    @property
    def phases(self) -> Sequence[Phase]:
        return self.structure.phases

    @property
    def candidates(self) -> Candidates:
        return self.structure.candidates

    @property
    def prices(self) -> Prices:
        return self.structure.prices

    @property
    def variables(self) -> Sequence[Variable]:
        return self.structure.variables

    @property
    def index(self) -> Mapping[tuple[str, str, str], int]:
        return self.structure.index

    @property
    def static(self) -> set[str]:
        return self.structure.static

    @property
    def memo(self) -> Memo:
        return self.structure.memo

    @property
    def copied(self) -> Sequence[Copied]:
        return self.structure.copied

    def is_fixed(self, number: int) -> bool:
        """Say whether a variable is about a value that depends on parameters alone, which is converted at load, in no phase."""
        return self.structure.is_fixed(number)

    def repeated(self, choice: Sequence[int]) -> list[tuple[int, str, float]]:
        """Return what is charged more often than programs do it: (reader, phase, seconds), or (reader, SHARED, bytes) for a copy."""
        return self.structure.repeated(choice)

    def choices(self, node: str, phase: str) -> tuple[tuple[Assignment, ...], list[Sides]]:
        """Return the assignments of a node in a phase, and the layouts that each implies."""
        return self.structure.choices(node, phase)

    def source(self, value: str, phase: str) -> tuple[int, tuple[Layout, ...]]:
        """Return the variable that decides the layout of `value`, and the layout for each of its choices."""
        return self.structure.source(value, phase)
