"""Pins: choices that a user fixes before the planner decides the rest.

    PIN     [PHASE/]PATTERN: ATOM, ATOM, ...
    ATOM    [WHERE=] S(DIM)@AXIS | P@AXIS | R@AXIS | R | LAYOUT

S, P and R are conditions on a layout: a dim is split over an axis (the planner decides where it is cut), it is partial over one, it is
neither; R alone: over no axis. LAYOUT is a whole layout in the notation of `unitp.layout`: `-,tp[0:5 5:9]`.

Without WHERE, the pattern (a glob) names tensors (parameters, states, inputs, values), and an atom says how they are held. With
WHERE, it names operators, by a node's name or by a parameter or state that they read, and an atom says which layout an operand
is required in or a result is produced in. WHERE is one of: x, the first operand that does not depend on parameters alone; w, the
first that does; y, the first result; x0, x1, ..., an operand by its number; y0, y1, ..., a result by its number. An atom without
WHERE takes it from the atom before it. A pin without PHASE holds in every phase.

A pin sets the price of every choice that it does not allow to infinity. The rest is planned as usual, so the plan is the best one
that satisfies the pins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.errors import InputError, PlanError, did_you_mean
from unitp.graph.graph import Graph
from unitp.graph.ops import layouts
from unitp.graph.values import Node
from unitp.layout import Layout, parse_layout
from unitp.planner.problem.problem import Problem
from unitp.planner.problem.variables import SHARED

EXAMPLE = (
    'A pin is written as in "blk.*.ffn_down.weight: S(1)@tp" or "decode/blk.*.ffn_down.weight: x=S(2)@tp, y=P@tp".'
)
MOST_NAMED = 6
"""A message lists at most this many legal choices."""

_ATOM = re.compile(
    r"(?:(?P<where>[wxy][0-9]{0,4})\s*=\s*)?(?P<kind>[SRP])(?:\((?P<dim>-?[0-9]{1,4})\))?(?:@(?P<axis>\w+))?"
)
_DIM = re.compile(r"(?:(?P<where>[wxy][0-9]{0,4})\s*=\s*)?(?P<dim>-(?:[|,].*)?|[^()@=]*\[.*)")
_COLONS = re.compile(r"\[[0-9: ]*|\|[a-z]+:")
"""Where a layout has colons."""
Mask = npt.NDArray[np.bool_]


class Atom(msgspec.Struct, frozen=True):
    """A condition on the layout of one operand (`where`; "": of the tensor itself) over one axis ("", only for R: every axis).

    Kind L wants one `layout` exactly, whatever the other fields are.
    """

    where: str
    kind: Literal["S", "R", "P", "L"]
    axis: str = ""
    dim: int = 0
    layout: Layout | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that the condition names."""
        return (*self.layout.axes, *self.layout.partial) if self.layout else (self.axis,) if self.axis else ()

    def misfit(self, rank: int) -> str:
        """Return what keeps the condition from a tensor with `rank` dims, or nothing."""
        if self.layout is not None and len(self.layout.dims) != rank:
            return f"layout {self.layout} has {len(self.layout.dims)}"
        return f"there is no dim {self.dim}" if self.kind == "S" and not -rank <= self.dim < rank else ""

    def holds(self, layout: Layout) -> bool:
        """Say whether a layout satisfies this condition."""
        if self.layout is not None:
            return self.layout == layout
        if self.kind == "S":
            split = layout.dims[self.dim]
            return split is not None and self.axis in split.axes
        if self.kind == "P":
            return self.axis in layout.partial
        used = {*layout.axes, *layout.partial}
        return self.axis not in used if self.axis else not used


class Pin(msgspec.Struct, frozen=True):
    """A pin that was read but not yet applied to a problem. `phase` "": every phase."""

    text: str
    phase: str
    pattern: str
    atoms: tuple[Atom, ...]

    @property
    def of_operators(self) -> bool:
        """Whether the pin is about operators, not about tensors."""
        return bool(self.atoms[0].where)


class _Place(msgspec.Struct, frozen=True):
    """A variable that a pin matched, and for each of its choices the layouts that the pin's atoms are about."""

    number: int
    name: str
    choices: tuple[tuple[Layout, ...], ...]


def parse(text: str, phases: Sequence[str] = ()) -> Pin:
    """Return the pin that a text describes; a first part `NAME/` is a phase if `phases` has that name.

    Raises InputError if the text cannot be read.
    """
    colon = _COLONS.sub(lambda found: " " * len(found[0]), text).rfind(":")
    pattern, tail = text[: max(colon, 0)].strip(), text[colon + 1 :]
    if not pattern:
        raise InputError(f'cannot read pin "{text}": it has no "PATTERN:" before its layouts', hint=EXAMPLE)
    phase, slash, rest = pattern.partition("/")
    phase, pattern = (phase, rest) if slash and phase in phases else ("", pattern)
    atoms: list[Atom] = []
    for part in _parts(tail):
        try:
            atoms.append(_atom(part, atoms[-1].where if atoms else ""))
        except PlanError as error:
            raise InputError(f'cannot read pin "{text}": {error.message}', hint=EXAMPLE) from None
    if any(atom.where for atom in atoms) and not all(atom.where for atom in atoms):
        raise InputError(
            f'cannot read pin "{text}": the first layout names no operand, a later one does',
            hint="Name an operand for each (x, w, y, x0, y0, ...), or for none to pin a tensor.",
        )
    return Pin(text, phase, pattern, tuple(atoms))


def _parts(tail: str) -> list[str]:
    """Return the atoms of a pin as text: what is between commas, but the dims of a layout together."""
    parts: list[str] = []
    within = False
    for part in (p.strip() for p in tail.split(",")):
        dim = _DIM.fullmatch(part)
        if dim and within and not dim["where"]:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
        within = dim is not None and "|" not in part
    return parts


def _atom(part: str, before: str) -> Atom:
    """Return the atom that a text stands for; one without WHERE has that of the atom `before`. Raises PlanError if it is none."""
    if dim := _DIM.fullmatch(part):
        return Atom(dim["where"] or before, "L", layout=parse_layout(part[dim.start("dim") :]))
    match = _ATOM.fullmatch(part)
    if match is None or (match["kind"] == "S") != (match["dim"] is not None):
        raise PlanError(f'"{part}" is not S(DIM)@AXIS, P@AXIS, R@AXIS, R or a layout')
    if match["axis"] is None and match["kind"] != "R":
        raise PlanError(f'"{part}" names no axis')
    kind: Literal["S", "R", "P"] = match["kind"]  # type: ignore[assignment]
    return Atom(match["where"] or before, kind, match["axis"] or "", int(match["dim"] or 0))


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


def written(layout: Layout) -> str:
    """Return a layout as conditions of a pin: `S(1)@tp`, `S(0)@dp S(2)@tp`, `P@tp`, or `R` for a replicated one.

    They leave open where dims are cut. The notation of the layout itself (`str`) is the pin that does not.
    """
    atoms = [f"S({dim})@{axis}" for dim, split in enumerate(layout.dims) if split for axis in split.axes]
    return " ".join([*atoms, *(f"P@{axis}" for axis in layout.partial)]) or "R"


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
