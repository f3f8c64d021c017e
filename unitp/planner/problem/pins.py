"""Pins applied to a planning problem (their notation: `unitp.planner.problem.pin_notation`).

A pin sets the price of every choice that it does not allow to infinity. The rest is planned as usual, so the plan is the best one
that satisfies the pins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.errors import PlanError, did_you_mean
from unitp.graph.graph import Graph
from unitp.graph.ops import layouts
from unitp.graph.values import Node
from unitp.layout import Layout
from unitp.planner.problem.pin_notation import Atom, Pin, parse, written
from unitp.planner.problem.problem import Problem
from unitp.planner.problem.variables import SHARED

MOST_NAMED = 6
"""A message lists at most this many legal choices."""

Mask = npt.NDArray[np.bool_]


class _Place(msgspec.Struct, frozen=True):
    """A variable that a pin matched, and for each of its choices the layouts that the pin's atoms are about."""

    number: int
    name: str
    choices: tuple[tuple[Layout, ...], ...]


def matches(pattern: str, name: str) -> bool:
    """Say whether a name, or its part before some dot, equals the pattern or matches it as a glob (`*`: any text; `[ab]`: a or b)."""
    return name == pattern or fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def readers(graph: Graph) -> Iterator[tuple[str, Node]]:
    """Yield (parameter or state, node) for every node that reads it, directly or through nodes that run once, at load."""
    roots = {**graph.origins, **{s.input: (s.input,) for s in graph.states}}
    for node in graph.nodes:
        if node.outputs[0] not in graph.origins:
            yield from ((root, node) for root in dict.fromkeys(r for name in node.inputs for r in roots.get(name, ())))


def apply(problem: Problem, pins: Sequence[str]) -> Problem:
    """Return the problem that forbids every choice that `pins` do not allow.

    Raises InputError for a pin that cannot be read. Raises one PlanError for all pins that match nothing, that no candidate
    satisfies, or that contradict each other.
    """
    names = [p.name for p in problem.phases]
    allowed: dict[int, list[tuple[Pin, Mask]]] = {}
    wrong: list[str] = []
    matcher = _Matcher(problem) if pins else None
    for text in pins:
        assert matcher is not None
        pin = parse(text, names)
        problems = _axis_problems(pin, problem)
        places = [] if problems else matcher.places(pin, problems)
        refused: dict[str, list[str]] = {}
        for place in places:
            mask = np.array([all(a.holds(at) for a, at in zip(pin.atoms, c, strict=True)) for c in place.choices])
            allowed.setdefault(place.number, []).append((pin, mask))
            if not mask.any():
                refused.setdefault(_legal(pin, place), []).append(place.name)
        problems += [
            f"no candidate of {_few(found)} satisfies it; legal there: {legal}" for legal, found in refused.items()
        ]
        wrong += [f'pin "{text}": {p}' for p in dict.fromkeys(problems)]
    if not wrong:
        wrong = _contradictions(problem, allowed)
    if wrong:
        raise PlanError("\n".join(wrong), hint="`unitp explain PLAN NAME` lists the choices of a tensor or operator.")
    unary = list(problem.unary)
    for number, masks in allowed.items():
        keep = np.logical_and.reduce([mask for _, mask in masks])
        unary[number] = np.where(keep, unary[number], np.inf)
    return problem.with_unary(unary)


class _Matcher:
    """Finds the variables that pins are about."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.graph = problem, problem.graph
        self.held = {p.name for p in self.graph.parameters} | {s.input for s in self.graph.states}
        self.by_parameter: dict[str, list[Node]] = {}
        for name, node in readers(self.graph):
            self.by_parameter.setdefault(name, []).append(node)

    def places(self, pin: Pin, wrong: list[str]) -> list[_Place]:
        """Return the variables that a pin matches, and add what keeps it from being applied to `wrong`."""
        phases = [p.name for p in self.problem.phases if pin.phase in ("", p.name)]
        found = self.operators(pin, phases, wrong) if pin.of_operators else self.tensors(pin, phases, wrong)
        if not found and not wrong:
            what = "operator" if pin.of_operators else "tensor"
            names = [*self.held, *(n.name for n in self.graph.nodes)] if pin.of_operators else list(self.graph.types)
            near = did_you_mean(pin.pattern, names)
            hint = near if near.startswith("Did") else ""
            wrong.append(" ".join(filter(None, (f'"{pin.pattern}" matches no {what} of {self.graph.name}.', hint))))
        return found

    def tensors(self, pin: Pin, phases: Sequence[str], wrong: list[str]) -> list[_Place]:
        """Return the variables of the tensors that a pin matches."""
        made = {}
        for name in (n for n in self.graph.types if matches(pin.pattern, n)):
            if pin.phase and name in self.held:
                wrong.append(f"{name} has one layout for all phases: leave out {pin.phase}/")
                continue
            atoms = self.resolve(pin.atoms, len(self.graph.types[name].shape), name, wrong)
            for phase in phases if atoms else ():
                number, left = self.decider(name, phase)
                made[number, name] = _Place(number, name, tuple((at,) * len(pin.atoms) for at in left))
        return list(made.values())

    def decider(self, name: str, phase: str) -> tuple[int, tuple[Layout, ...]]:
        """Return the variable that decides how a tensor is held, and the layout for each of its choices."""
        last = self.problem.index.get(("output", name, phase))
        if last is not None and ("value", name, phase) not in self.problem.index:
            return last, self.problem.variables[last].layouts
        return self.problem.source(name, phase)

    def operators(self, pin: Pin, phases: Sequence[str], wrong: list[str]) -> list[_Place]:
        """Return the variables of the operators that a pin matches, by their own names or by what they read."""
        nodes = {n.name: n for n in self.graph.nodes if matches(pin.pattern, n.name)}
        for name, reading in self.by_parameter.items():
            nodes |= {n.name: n for n in reading if matches(pin.pattern, name)}
        made = []
        for node in nodes.values():
            rule = self.problem.candidates.rules[node.name]
            slots = [self.slot(node, atom.where) for atom in pin.atoms]
            if missing := [a.where for a, slot in zip(pin.atoms, slots, strict=True) if slot is None]:
                wrong.append(
                    f"{node.op} {node.name} has no {', '.join(missing)}; it has {', '.join(operands(self.problem, node))}"
                )
                continue
            places = [slot for slot in slots if slot is not None]
            ranks = [len((rule.outputs if out else rule.inputs)[n] or ()) for out, n in places]
            fitting = [
                self.resolve([a], r, f"{a.where} of {node.name}", wrong) for a, r in zip(pin.atoms, ranks, strict=True)
            ]
            if not all(fitting):
                continue
            homes = [SHARED] if node.name in self.problem.static else phases
            for number in (self.problem.index["node", node.name, home] for home in homes):
                sides = [layouts(rule, dict(a)) for a in self.problem.variables[number].assignments]
                choices = tuple(tuple(_side(side, at) for at in places) for side in sides)
                made.append(_Place(number, node.name, choices))
        return made

    def slot(self, node: Node, where: str) -> tuple[bool, int] | None:
        """Return (is a result, position) of an operand by its name in a pin, or None if the operator has no such operand."""
        return operands(self.problem, node).get(where)

    @staticmethod
    def resolve(atoms: Sequence[Atom], rank: int, what: str, wrong: list[str]) -> bool:
        """Say whether all atoms fit a tensor with `rank` dims, and add what keeps the others from it to `wrong`."""
        bad = sorted({misfit for atom in atoms if (misfit := atom.misfit(rank))})
        wrong += [f"{what} has {rank} dims, {misfit}" for misfit in bad]
        return not bad


def operands(problem: Problem, node: Node) -> dict[str, tuple[bool, int]]:
    """Return (is a result, position) of each operand and result of a node, by its names in pins."""
    found: dict[str, tuple[bool, int]] = {}
    present = [(i, name) for i, name in enumerate(node.inputs) if name]
    for i, name in present:
        found.setdefault("w" if name in problem.graph.origins else "x", (False, i))
    found["y"] = (True, 0)
    found |= {f"x{i}": (False, i) for i, _ in present}
    return found | {f"y{i}": (True, i) for i in range(len(node.outputs))}


def _side(side: tuple[tuple[Layout | None, ...], tuple[Layout, ...]], place: tuple[bool, int]) -> Layout:
    layout = side[1][place[1]] if place[0] else side[0][place[1]]
    assert layout is not None, "only operands that are present have a name"
    return layout


def _axis_problems(pin: Pin, problem: Problem) -> list[str]:
    sizes = problem.mesh.sizes
    found = []
    for axis in dict.fromkeys(axis for a in pin.atoms for axis in a.axes):
        if axis not in sizes:
            found.append(f'axis "{axis}" is not on the mesh {problem.mesh}. {did_you_mean(axis, sizes)}')
        elif sizes[axis] == 1 and any(a.kind != "R" for a in pin.atoms if axis in a.axes):
            found.append(f"axis {axis} has length 1, so nothing is split over it")
    return found


def _legal(pin: Pin, place: _Place) -> str:
    """Return the choices of a place in the grammar of pins, those that break the fewest atoms first."""

    def text(choice: tuple[Layout, ...]) -> str:
        parts: Mapping[str, str] = {
            a.where: str(at) if a.layout is not None else written(at) for a, at in zip(pin.atoms, choice, strict=True)
        }
        return ", ".join(f"{where}={said}" if where else said for where, said in parts.items())

    def distance(choice: tuple[Layout, ...]) -> tuple[int, tuple[bool, ...]]:
        broken = tuple(not a.holds(at) for a, at in zip(pin.atoms, choice, strict=True))
        return sum(broken), broken

    found = list(dict.fromkeys(map(text, sorted(place.choices, key=distance))))
    more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return "; ".join(found[:MOST_NAMED]) + more


def _few(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" (and {len(names) - 3} more like it)" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _contradictions(problem: Problem, allowed: Mapping[int, Sequence[tuple[Pin, Mask]]]) -> list[str]:
    found: dict[str, list[str]] = {}
    for number, masks in allowed.items():
        if not np.logical_and.reduce([mask for _, mask in masks]).any():
            pins = " and ".join(f'"{pin.text}"' for pin, _ in masks)
            found.setdefault(pins, []).append(problem.variables[number].name)
    return [
        f"pins {pins} leave no choice for {_few(names)}: each can be satisfied, but not together"
        for pins, names in found.items()
    ]
