"""The best plan of a small graph, found by trying every plan. The planner is tested against it.

    objective(plan) = sum_p weight_p * seconds(program_p)
    held(plan)      = bytes of parameters, states, and copies of parameters that any phase's program makes, on all ranks together

Each plan is made as a `Plan`, lowered phase by phase, and priced from the program's instructions. Of the planner,
only its candidates are used. `several` marks a plan that keeps a parameter, or what follows from parameters, in a second layout.

A plan chooses, for all phases, the layout of each parameter and state and the assignment of each node that depends on
parameters alone; for each phase, the assignment of every other node, the layout of each input, and the layout of each value
that is an output or that several read. A layout is one that a reader requires, one that a producer gives, or the
replicated one. Choices that phases do not share are tried phase by phase: of the plans of a phase that hold the same copies, the
fastest is kept (with memory: each that no other beats in time and on all ranks).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.cost import Machine
from unitp.graph.analysis import static_nodes
from unitp.graph.graph import Graph
from unitp.graph.ops import layouts
from unitp.graph.values import Node
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner.choices.candidates import ROLES, Assignment, Candidates
from unitp.plans import Phase, PhasePlan, Plan
from unitp.program.analysis import constants, is_view, per_call
from unitp.program.instructions import Instruction, Local, Mask, Program, reads, writes
from unitp.program.lower import lower
from unitp.program.memory import local_bytes, peaks
from unitp.program.objective import predicted_seconds

Place = tuple[str, str]
"""A choice: its kind (parameter, state, node or value) and its name."""

Held = dict[tuple[str, Layout], tuple[int, ...]]
"""Bytes on each rank, by what is held and in which layout."""


class Found(msgspec.Struct, frozen=True):
    """A plan with its objective in seconds, the bytes that all ranks hold, and the peak bytes of each rank."""

    objective: float
    held: int
    peaks: tuple[int, ...]
    plan: Plan
    several: bool


class _PhaseFound(msgspec.Struct, frozen=True):
    seconds: float
    peaks: tuple[int, ...]
    """The peak bytes of activations and states alone, by rank."""
    held: Held
    plan: PhasePlan
    again: bool
    """Whether it keeps a parameter in a second layout."""


class Space:
    """Every plan of `graph` for these phases. `count`: the programs that would be lowered to try all of them."""

    def __init__(
        self,
        graph: Graph,
        mesh: Mesh,
        phases: Sequence[Phase],
        machine: Machine,
        roles: Mapping[str, str] = ROLES,
        *,
        memory: bool = False,
    ) -> None:
        self.graph, self.mesh, self.phases, self.machine, self.memory = graph, mesh, tuple(phases), machine, memory
        self.candidates = Candidates(graph, mesh, roles, [machine])
        static = static_nodes(graph)
        self.fixed = [node for node in graph.nodes if node.name in static]
        self.moving = [node for node in graph.nodes if node.name not in static]
        self._seconds: dict[object, float] = {}

    # what there is to choose

    def assignments(self, node: Node, phase: Phase) -> list[Assignment]:
        return self.candidates.of(node, phase.sizes)

    def sides(self, node: Node, phase: Phase) -> Iterator[tuple[tuple[Layout | None, ...], tuple[Layout, ...]]]:
        rule = self.candidates.rules[node.name]
        return (layouts(rule, dict(a)) for a in self.assignments(node, phase))

    def required(self, name: str, phases: Sequence[Phase]) -> dict[Layout, None]:
        """Return the layouts in which nodes require a value, and the replicated one."""
        found = {Layout.replicated(len(self.graph.types[name].shape)): None}
        for node in self.graph.nodes:
            for operand in (i for i, read in enumerate(node.inputs) if read == name):
                for phase in phases:
                    sides = self.sides(node, phase)
                    found |= {at: None for required, _ in sides if (at := required[operand]) is not None}
        return found

    def outside(self, name: str, phases: Sequence[Phase]) -> list[Layout]:
        """Return the layouts in which a value from outside may be held: never as a partial sum."""
        return [layout for layout in self.required(name, phases) if not layout.partial]

    def homes(self, node: Node, place: int, phase: Phase) -> list[Layout | None]:
        """Return the layouts in which an output of a node may be held; None: as the node produces it.

        None is listed only if the output has at most one reader, or if no layout can say it: a maximum that is still to be taken.
        """
        name = node.outputs[place]
        readers = sum(name in other.inputs for other in self.graph.nodes)
        ends = (name in self.graph.outputs) + sum(s.output == name for s in self.graph.states)
        if readers + ends < 2 and name not in self.graph.outputs:
            return [None]
        produced = {side[1][place]: None for side in self.sides(node, phase)}
        homes = {Layout(lay.dims): None for lay in produced} | self.required(name, [phase])
        if readers + ends > 1:
            homes |= produced
        for state in (s for s in self.graph.states if s.output == name):
            homes |= dict.fromkeys(self.outside(state.input, self.phases))
        made = [home for home in homes if home.reduction == "sum"]
        return [*made] if len(made) == len(homes) else [None, *made]

    def _shared(self) -> tuple[list[Place], list[Sequence[object]]]:
        """Return the choices for all phases, and what there is to choose for each."""
        made: dict[Place, Sequence[object]] = {}
        for parameter in self.graph.parameters:
            made["parameter", parameter.name] = self.outside(parameter.name, self.phases)
        for state in self.graph.states:
            made["state", state.input] = self.outside(state.input, self.phases)
        made |= {("node", node.name): self.assignments(node, self.phases[0]) for node in self.fixed}
        return [*made], [*made.values()]

    def _own(self, phase: Phase) -> tuple[list[Place], list[Sequence[object]]]:
        """Return the choices of one phase, and what there is to choose for each."""
        made: dict[Place, Sequence[object]] = {("value", n): self.outside(n, [phase]) for n in self.graph.inputs}
        for node in self.moving:
            made["node", node.name] = self.assignments(node, phase)
            made |= {("value", name): self.homes(node, place, phase) for place, name in enumerate(node.outputs)}
        return [*made], [*made.values()]

    @property
    def count(self) -> int:
        shared = prod(len(o) for o in self._shared()[1])
        return shared * sum(prod(len(o) for o in self._own(phase)[1]) for phase in self.phases)

    # trying all plans

    def all(self) -> Iterator[Found]:
        """Yield every plan that may be the best one (with memory: within any limit)."""
        places, options = self._shared()
        for choice in product(*options):
            chosen = dict(zip(places, choice, strict=True))
            parameters: dict[str, Layout] = {n: c for (kind, n), c in chosen.items() if kind == "parameter"}  # type: ignore[misc]
            states: dict[str, Layout] = {n: c for (kind, n), c in chosen.items() if kind == "state"}  # type: ignore[misc]
            fixed: dict[str, dict[str, Split]] = {n: dict(c) for (kind, n), c in chosen.items() if kind == "node"}  # type: ignore[call-overload]
            base = Plan(self.graph.hash, self.mesh, parameters, states, ())
            found = [self._phase(base, fixed, phase) for phase in self.phases]
            for parts in product(*found):
                yield self._together(base, parts)

    def considered(self, worth: float) -> list[Found]:
        """Return the plans with one layout for each parameter; all plans, if the best of these is slower by more than `worth`."""
        every = list(self.all())
        once = [found for found in every if not found.several]
        return every if best(once).objective > best(every).objective * (1 + worth) else once

    def of(self, plan: Plan) -> Found:
        """Return a plan as this space sees it: its objective and peaks, from its programs."""
        parts = []
        for made in plan.phases:
            program = lower(self.graph, plan, made.phase.name)
            parts.append(self._found(program, made))
        return self._together(plan, parts)

    def _together(self, base: Plan, parts: Sequence[_PhaseFound]) -> Found:
        held = _union(parts)
        bytes_held = np.sum([*held.values(), (0,) * self.mesh.size], axis=0) + self._state_bytes(base)
        value = sum(phase.weight * part.seconds for phase, part in zip(self.phases, parts, strict=True))
        most = np.max([part.peaks for part in parts], axis=0) + bytes_held if self.memory else ()
        plan = msgspec.structs.replace(base, phases=tuple(part.plan for part in parts))
        several = any(part.again for part in parts) or not _is_one_layout(held)
        return Found(value, int(bytes_held.sum()), tuple(int(n) for n in most), plan, several)

    def _phase(self, base: Plan, fixed: Mapping[str, dict[str, Split]], phase: Phase) -> list[_PhaseFound]:
        """Return the plans of a phase that may be part of the best one, with the choices that all phases share given."""
        places, options = self._own(phase)
        best: dict[tuple[frozenset[tuple[str, Layout]], bool], list[_PhaseFound]] = {}
        for choice in product(*options):
            chosen = dict(zip(places, choice, strict=True))
            nodes: dict[str, dict[str, Split]] = {n: dict(c) for (kind, n), c in chosen.items() if kind == "node"}  # type: ignore[call-overload]
            values: dict[str, Layout] = {n: c for (kind, n), c in chosen.items() if kind == "value" and c is not None}  # type: ignore[misc]
            made = PhasePlan(phase, {**fixed, **nodes}, values)
            program = lower(self.graph, msgspec.structs.replace(base, phases=(made,)), phase.name)
            found = self._found(program, made)
            alike = best.setdefault((frozenset(found.held), found.again), [])
            if not any(_beats(other, found) for other in alike):
                alike[:] = [other for other in alike if not _beats(found, other)] + [found]
        return [found for alike in best.values() for found in alike]

    def _found(self, program: Program, made: PhasePlan) -> _PhaseFound:
        priced, needs = self._priced(program), self._peaks(program)
        return _PhaseFound(priced, needs, self._held(program), made, self._is_cut_again(program))

    def _priced(self, program: Program) -> float:
        """Return `predicted_seconds`, which is a sum over instructions; equal ones are priced once for all plans."""
        total = 0.0
        for _, instruction in per_call(program):
            names = *reads(instruction), *writes(instruction)
            key = (_bare(instruction), tuple(program.values[n] for n in names))
            if key not in self._seconds:
                alone = msgspec.structs.replace(
                    program,
                    values={n: program.values[n] for n in names},
                    inputs=reads(instruction),
                    parameters=(),
                    states=(),
                    outputs=writes(instruction),
                    instructions=(instruction,),
                )
                self._seconds[key] = predicted_seconds(alone, self.machine)
            total += self._seconds[key]
        return total

    def _peaks(self, program: Program) -> tuple[int, ...]:
        return tuple(m.activations for m in peaks([program])) if self.memory else ()

    def _kept(self, program: Program) -> tuple[set[str], dict[str, Instruction]]:
        """Return the values that follow from parameters alone and that each call reads, and the instruction that makes each such value."""
        known = constants(program).keys()
        made = {name: i for i in program.instructions for name in writes(i) if name in known}
        kept = {*program.outputs, *(new for _, new in program.states)}
        kept |= {name for _, instruction in per_call(program) for name in reads(instruction)}
        return kept & known, made

    def _is_cut_again(self, program: Program) -> bool:
        """Say whether what is kept of a parameter, or of a view, was converted beforehand: it is a second layout then."""
        kept, made = self._kept(program)
        for name in kept:
            converted = False
            while (maker := made.get(name)) is not None:
                if isinstance(maker, Local) and not is_view(maker):
                    converted = False  # of the result of an operator, this conversion is all that is kept
                    break
                if not isinstance(maker, Local | Mask):
                    converted = True
                elif isinstance(maker, Local) and converted:
                    break
                name = reads(maker)[0]
            if converted:
                return True
        return False

    def _held(self, program: Program) -> Held:
        """Parameters, and what follows from them and is read by each call, unless it is a view of another."""
        kept, made = self._kept(program)
        roots = set(program.parameters)
        for name in kept:
            while isinstance(maker := made.get(name), Local) and is_view(maker):
                name = maker.inputs[0]
            roots.add(name)
        return {(n.partition("@")[0], program.values[n].layout): self._bytes(program, n) for n in roots}

    def _bytes(self, program: Program, name: str) -> tuple[int, ...]:
        return tuple(local_bytes(program, name, rank) for rank in range(self.mesh.size))

    def _state_bytes(self, base: Plan) -> npt.NDArray[np.int64]:
        """Return the bytes of states on each rank, in the phase in which they are largest."""
        total = np.zeros(self.mesh.size, np.int64)
        for state in self.graph.states:
            sizes = [np.zeros(self.mesh.size, np.int64)]
            for phase in self.phases:
                shape = state.type.sized(phase.sizes)
                layout = base.states[state.input].bind(shape, self.mesh)
                parts = [prod(layout.local_shape(shape, rank, self.mesh)) for rank in range(self.mesh.size)]
                sizes.append(np.array(parts) * np.dtype(state.type.dtype).itemsize)
            total = total + np.max(sizes, axis=0)
        return total


def best(plans: Sequence[Found]) -> Found:
    """Return the fastest plan."""
    return min(plans, key=lambda found: found.objective)


def frugal(plans: Sequence[Found], tolerance: float) -> Found:
    """Return, of the plans within `tolerance` of the fastest, the one that holds least; of equal ones the fastest."""
    most = best(plans).objective * (1 + tolerance)
    return min((p for p in plans if p.objective <= most), key=lambda found: (found.held, found.objective))


def _union(parts: Sequence[_PhaseFound]) -> Held:
    """Return the copies that any phase holds."""
    held: Held = {}
    for part in parts:
        held |= part.held
    return held


def _is_one_layout(held: Held) -> bool:
    """Say whether each is held in one layout, masks apart, by all phases."""
    dims: dict[str, tuple[Split | None, ...]] = {}
    return all(dims.setdefault(name, layout.dims) == layout.dims for name, layout in held)


def _beats(a: _PhaseFound, b: _PhaseFound) -> bool:
    """Say whether `a` is as good as `b` in every respect; both hold the same copies."""
    return a.seconds <= b.seconds and all(x <= y for x, y in zip(a.peaks, b.peaks, strict=True))


def _bare(instruction: Instruction) -> tuple[object, ...]:
    """Return an instruction without the names of its values."""
    if isinstance(instruction, Local):
        given = tuple(map(bool, instruction.inputs))
        return (
            instruction.op,
            given,
            tuple(sorted(instruction.attrs.items())),
            tuple(sorted(instruction.splits.items())),
        )
    about = msgspec.structs.asdict(instruction)
    return type(instruction).__name__, *(v for k, v in about.items() if k not in ("input", "output"))
