"""What a plan could have chosen instead: all choices of every operator and tensor, with their local cost and their total cost.

    own      seconds of the operator's work
    in, out  seconds of converting what it reads, and what it produces, with its neighbours as in the plan
    total    the objective if this choice is forced and everything else is planned fastest for it (`unitp.planner.solve.marginals`)
    regret   total - the objective of the fastest plan: what the choice costs everywhere
    held     bytes that a rank holds under that plan, the mean over ranks; of equally fast plans, the one that holds fewest

The plan may be up to 0.1 % slower than the fastest one if it holds fewer bytes; then its own choices have a regret, too. Totals are
exact if the plan could be found exactly, except that the search does not look for conversions that several readers share (a total
counts them once). Otherwise the layouts of parameters and states stay as in the plan (`exact` is False). Pins hold for the rest of
the plan; at the place asked about they are lifted, which shows what they cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from unitp.certificate import CertifiedPlan, Unused
from unitp.cost import Machine
from unitp.cost.record import planned_machine
from unitp.errors import PlanError, did_you_mean
from unitp.explain.answers import Alternative, Contested, Cost, Place
from unitp.explain.choices_made import choice_of, choice_text, pin_text
from unitp.explain.patterns import Places, pattern
from unitp.graph.graph import Graph
from unitp.planner.choices.candidates import Candidates
from unitp.planner.prices.work import Prices
from unitp.planner.problem.blocks import FEW, instead
from unitp.planner.problem.one_layout import one_layout
from unitp.planner.problem.pins import apply as apply_pins
from unitp.planner.problem.pins import matches, readers
from unitp.planner.problem.problem import Problem, posed
from unitp.planner.problem.unused_axes import unused
from unitp.planner.problem.variables import SHARED, Variable
from unitp.planner.solve.elimination import Table, TooWideError, evaluate
from unitp.planner.solve.marginals import Marginals, MarginalsGiven
from unitp.plans import require

ROUNDING = 1e-9
"""Differences below this fraction of the objective count as zero."""

TIE = 1e-10
"""The price of all bytes that the plan holds, as a fraction of the objective: of equally fast plans, the one that holds least wins."""


class Alternatives:
    """The planning problem of a plan, with the plan's own choices.

    machine   the machine to price on, by default that of the plan; its weighted splits are alternatives as well

    Raises PlanError if the plan is not for this graph or has a choice that this planner does not consider, and MeshError if the
    machine does not fit the plan's mesh.
    """

    def __init__(self, plan: CertifiedPlan, graph: Graph, machine: Machine | None = None) -> None:
        require(plan, graph)
        planned = planned_machine(plan)
        self.plan, self.graph, self.machine = plan, graph, machine or planned
        self.machine.require_fits(plan.mesh)
        phases = tuple(p.phase for p in plan.phases)
        machines = [planned] if self.machine == planned else [planned, self.machine]
        candidates = Candidates(graph, plan.mesh, machines=machines)
        prices = Prices(self.machine, plan.mesh)
        free = posed(graph, plan.mesh, phases, candidates, prices)
        if len(free.variables) <= FEW and (copies := free.worth_copying(forced=True)):
            free = posed(graph, plan.mesh, phases, candidates, prices, copies=copies)
        self.free = free.unary
        pinned = apply_pins(free, plan.certificate.pins)
        self.choice = choice_of(pinned, plan)
        self.edges = _edges(pinned)
        self.problem = pinned.relaxed()
        once = one_layout(self.problem)
        if np.isfinite(evaluate(once.unary, once.pairs, self.choice)):  # else parameters have several layouts
            self.problem = once
        self.objective = self.problem.value(self.choice)
        self.held_bytes = self.problem.held(self.choice) / plan.mesh.size
        self.places = Places(graph)
        self.twice: dict[int, float] = {}
        for reader, home, price in self.problem.repeated(self.choice):
            if home != SHARED:
                self.twice[reader] = self.twice.get(reader, 0.0) + price

    @property
    def same_prices(self) -> bool:
        """Whether the plan was priced on this machine."""
        return self.plan.certificate.machine in ("", self.machine.hash)

    @cached_property
    def marginals(self) -> Marginals | MarginalsGiven:
        """The least total of every choice; exact, or with the shared variables as in the plan."""
        return self._marginals(self.problem.unary)

    @cached_property
    def fastest(self) -> float:
        """The objective of the fastest plan known, in weighted seconds."""
        return min(self.objective, self.problem.value(self.marginals.least()))

    @property
    def exact(self) -> bool:
        """Whether totals are exact; otherwise parameters and states keep the layouts of the plan."""
        return isinstance(self.marginals, Marginals)

    def at(self, name: str) -> list[Place]:
        """Return the places that match a name or pattern: tensors, operators, and operators that read a matching parameter or state.

        Raises PlanError if nothing matches.
        """
        wanted = {node.name for root, node in readers(self.graph) if matches(name, root)}
        numbers = [
            i
            for i, v in enumerate(self.problem.variables)
            if (matches(name, v.name) or (v.kind == "node" and v.name in wanted)) and len(self.problem.unary[i]) > 0
        ]
        if not numbers:
            known = [*self.graph.types, *(n.name for n in self.graph.nodes)]
            near = did_you_mean(name, known)
            hint = near if near.startswith("Did") else "`unitp program` lists the operators, `unitp show` the weights."
            raise PlanError(f'"{name}" is not a tensor or operator of {self.graph.name}', hint=hint)
        alike: dict[object, list[int]] = {}
        for i in numbers:
            regrets = np.round(self.marginals[i] / self.objective, 9)
            key = (self.label(i), self.problem.variables[i].kind, self.problem.variables[i].phase, self.choice[i])
            alike.setdefault((*key, tuple(regrets)), []).append(i)
        return [self._place(found) for found in alike.values()]

    def expensive(self, most: int = 10) -> list[Cost]:
        """Return the places in which a call spends the most time, at most `most` for each phase."""
        sums: dict[tuple[str, str], list[float]] = {}
        weights = {p.name: p.weight or 1.0 for p in self.problem.phases}
        for i, variable in enumerate(self.problem.variables):
            if variable.phase == SHARED:
                continue
            own, into, _ = self._costs(i, called=True)
            entry = sums.setdefault((variable.phase, self.label(i)), [0, 0.0, 0.0])
            entry[0] += variable.kind == "node"
            entry[1] += float(own[self.choice[i]]) / weights[variable.phase]
            entry[2] += (float(into[self.choice[i]]) - self.twice.get(i, 0.0)) / weights[variable.phase]
        found = [Cost(label, phase, int(n), own, into) for (phase, label), (n, own, into) in sums.items()]
        found.sort(key=lambda c: -(c.own_s + c.in_s))
        return [c for phase in weights for c in [f for f in found if f.phase == phase][:most]]

    def contested(self, most: int = 10) -> list[Contested]:
        """Return the choices whose best alternative has the least regret, without those whose alternative costs nothing."""
        alike: dict[tuple[str, str, str, str, str, float], list[int]] = {}
        tiny = ROUNDING * self.objective
        given = isinstance(self.marginals, MarginalsGiven)
        for i, variable in enumerate(self.problem.variables):
            if len(self.problem.unary[i]) < 2 or (given and variable.phase == SHARED):
                continue
            regrets = self.marginals[i] - self.marginals.value
            regrets[self.choice[i]] = np.inf
            for x in range(len(regrets)) if variable.copies else ():
                if variable.layouts[x] == variable.layouts[self.choice[i]]:
                    regrets[x] = np.inf
            nearest = int(regrets.argmin())
            if not tiny < regrets[nearest] < np.inf:
                continue
            texts = choice_text(variable, self.choice[i]), choice_text(variable, nearest)
            size = round(float(regrets[nearest]) / self.objective, 12)
            key = (self.label(i), variable.kind, variable.phase, *texts, size)
            alike.setdefault(key, []).append(i)
        ordered = sorted(alike.items(), key=lambda item: item[0][-1])[:most]
        made = []
        for (what, kind, phase, now, other, _), found in ordered:
            names = tuple(self.problem.variables[i].name for i in found)
            regret = min(a.regret_s for a in self._place(found[:1]).alternatives if not a.chosen)
            if regret > tiny:
                made.append(Contested(what, kind, phase, len(found), names, now, other, regret))
        return sorted(made, key=lambda c: c.regret_s)

    def left_whole(self) -> tuple[Unused, ...]:
        """Return, for each axis over which a phase does not split all products, the cost of the best plan that does."""
        return unused(self.problem, self.choice, instead(self.problem), partly=True)

    def label(self, number: int) -> str:
        """Return the label of a variable, which equal places of all layers share."""
        variable = self.problem.variables[number]
        if variable.kind == "node":
            return self.places.label(variable.name)
        if variable.name in self.places.producer:
            return f"{variable.kind} of {self.places.label(variable.name)}"
        return pattern(variable.name)

    def _total(self, number: int, choice: Sequence[int]) -> float:
        """Return the objective of a choice of all variables, with the pins of variable `number` lifted."""
        return self.problem.value(choice, {number: self.free[number]})

    def _regret(self, total: float) -> float:
        """Return the difference of a total to the objective of the fastest plan; 0 if it is only rounding."""
        regret = total - self.fastest
        return 0.0 if abs(regret) < ROUNDING * self.objective else regret

    def _marginals(self, unary: Sequence[Table]) -> Marginals | MarginalsGiven:
        price = TIE * self.objective / max(self.problem.held(self.choice), 1.0)
        unary, pairs = self.problem.holding.priced(unary, self.problem.pairs, price)
        try:
            return Marginals(unary, pairs)
        except TooWideError:
            phases = [p.name for p in self.problem.phases]
            blocks = [[i for i, v in enumerate(self.problem.variables) if v.phase == p] for p in phases]
            return MarginalsGiven(unary, pairs, blocks, self.choice)

    def _costs(self, number: int, *, called: bool = False) -> tuple[Table, Table, Table]:
        """Return own, in and out of every choice of a variable, in weighted seconds; `called`: without what is done at load."""
        into, out = np.zeros_like(self.free[number]), np.zeros_like(self.free[number])
        for other, reads, table in self.edges[number]:
            if called and self.problem.is_fixed(other):
                continue
            column = table[:, self.choice[other]]
            into, out = (into + column, out) if reads else (into, out + column)
        return self.free[number], into, out

    def _place(self, numbers: Sequence[int]) -> Place:
        """Return the alternatives of equal places, computed for the first of them."""
        number = numbers[0]
        variable, problem = self.problem.variables[number], self.problem
        pinned = np.isinf(problem.unary[number]) & np.isfinite(self.free[number])
        marginals = self.marginals
        if pinned.any():
            marginals = self._marginals([*problem.unary[:number], self.free[number], *problem.unary[number + 1 :]])
        totals = marginals[number]
        weight = {p.name: p.weight for p in problem.phases}
        per_call = (weight[variable.phase] if variable.phase else sum(weight.values())) or 1.0
        own, into, out = (table / per_call for table in self._costs(number))
        made = []
        for x, least in enumerate(totals):
            best = marginals.best(number, x) if np.isfinite(least) else None
            chosen = x == self.choice[number]
            total = self._total(number, best) if best else np.inf
            total = min(total, self.objective) if chosen else total
            made.append(
                Alternative(
                    choice=choice_text(variable, x),
                    pin=pin_text(problem, variable, x),
                    chosen=chosen,
                    pinned_out=bool(pinned[x]),
                    own_s=float(own[x]),
                    in_s=float(into[x]),
                    out_s=float(out[x]),
                    total_s=float(total),
                    regret_s=self._regret(float(total)),
                    held_bytes=problem.held(best) / problem.mesh.size if best else np.inf,
                    phases=problem.seconds(best) if best else {},
                    others=sum(a != b for a, b in zip(best, self.choice, strict=True)) - (x != self.choice[number])
                    if best
                    else 0,
                )
            )
        made.sort(key=lambda a: (not a.chosen, a.total_s))
        made = list({a.pin: a for a in reversed(made)}.values())[::-1] if variable.copies else made
        names = tuple(problem.variables[i].name for i in numbers)
        return Place(self.label(number), variable.kind, variable.phase, names, tuple(made))


def _edges(problem: Problem) -> list[list[tuple[int, bool, Table]]]:
    """Return the neighbours of every variable: (number, whether it reads from that one, table with its own choices as dim 0)."""
    order = {node.name: at for at, node in enumerate(problem.graph.nodes)}
    made = {value: order[n.name] for n in problem.graph.nodes for value in n.outputs}

    def place(variable: Variable) -> float:
        if variable.kind == "node":
            return order[variable.name]
        if variable.kind == "value":
            return made[variable.name] + 0.5
        return float("inf") if variable.kind == "output" else -1.0

    places = [place(v) for v in problem.variables]
    edges: list[list[tuple[int, bool, Table]]] = [[] for _ in problem.variables]
    for (a, b), table in problem.pairs.items():
        edges[a].append((b, places[a] > places[b], table))
        edges[b].append((a, places[b] > places[a], table.T))
    return edges


def machine_note(found: Alternatives) -> str:
    """Return a note for the reader if prices are of another machine than the plan's; empty if they are not."""
    if found.same_prices:
        return ""
    return (
        f"The plan was priced on machine {found.plan.certificate.machine}, but these prices are of machine {found.machine.hash}: "
        "costs are compared on the latter."
    )
