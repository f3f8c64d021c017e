"""The choices that a plan stands for, as numbers of a planning problem, and each of them in words."""

from __future__ import annotations

from collections.abc import Sequence

from unitp.errors import PlanError
from unitp.explain.description import factors_text
from unitp.graph.ops import layouts
from unitp.layout import Layout
from unitp.planner.problem.pin_notation import written
from unitp.planner.problem.pins import operands
from unitp.planner.problem.problem import Problem
from unitp.planner.problem.variables import Variable
from unitp.plans import Plan


def choice_of(problem: Problem, plan: Plan) -> list[int]:
    """Return the choice of every variable that a plan stands for. Raises PlanError if the planner has no such candidate."""
    phases = {p.phase.name: p for p in plan.phases}
    choice: list[int] = []
    strange = []
    for variable in problem.variables:
        phase = phases[variable.phase or plan.phases[0].phase.name]
        options: Sequence[object] = variable.assignments or variable.layouts
        wanted: object
        if variable.kind == "node":
            wanted = tuple(sorted(phase.nodes.get(variable.name, {}).items()))
        elif variable.kind == "output":
            wanted = phase.values.get(variable.name, variable.layouts[0])
        else:
            held = {"parameter": plan.parameters, "state": plan.states}.get(variable.kind, phase.values)
            wanted = held.get(variable.name, Layout.replicated(len(problem.graph.types[variable.name].shape)))
        if wanted in options:
            choice.append(options.index(wanted))
        else:
            strange.append(f"{variable.kind} {variable.name}" + (f" in {variable.phase}" if variable.phase else ""))
            choice.append(0)
    for number, variable in enumerate(problem.variables):
        if variable.copies:
            choice[number] = _best_copies(problem, choice, number)
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise PlanError(
            f"the plan splits {', '.join(strange[:3])}{more} in a way that this planner does not consider",
            hint="The plan was edited, or made by another version or with other roles: plan anew with `unitp plan`.",
        )
    for number, variable in enumerate(problem.variables):
        if (
            variable.kind == "output" and variable.name not in phases[variable.phase].values
        ):  # as its operator leaves it
            source, left = problem.source(variable.name, variable.phase)
            choice[number] = variable.layouts.index(Layout(left[choice[source]].dims))
    return choice


def _best_copies(problem: Problem, choice: Sequence[int], number: int) -> int:
    """Return the choice with the same layout whose copies cost least, with neighbours as in the plan."""
    variable, own = problem.variables[number], problem.unary[number].copy()
    for (a, b), table in problem.pairs.items():
        if number in (a, b):
            own = own + (table[:, choice[b]] if number == a else table[choice[a]])
    return min(
        (x for x, lay in enumerate(variable.layouts) if lay == variable.layouts[choice[number]]), key=own.__getitem__
    )


def choice_text(variable: Variable, number: int) -> str:
    """Return a choice in a few words: `k over tp[0:768 768:1536]`, `-,tp[0:2 1:3]`, `whole`, `replicated`."""
    if variable.assignments:
        return factors_text(variable.assignments[number])
    return variable.layouts[number].words


def pin_text(problem: Problem, variable: Variable, number: int) -> str:
    """Return the layouts of a choice, in the grammar of pins."""
    if not variable.assignments:
        return written(variable.layouts[number])
    node = next(n for n in problem.graph.nodes if n.name == variable.name)
    inputs, outputs = layouts(problem.candidates.rules[node.name], dict(variable.assignments[number]))
    said: dict[tuple[bool, int], str] = {}
    for where, place in operands(problem, node).items():
        said.setdefault(place, where)
    texts = []
    for (out, at), where in said.items():
        layout = outputs[at] if out else inputs[at]
        if layout is not None:
            texts.append(", ".join(f"{where}={atom}" for atom in written(layout).split()))
    return ", ".join(texts)
