"""A phase of a plan for the page: one typical layer step by step, and all layers as blocks of predicted time.

Steps are the instructions of the phase's program with their predicted seconds. A step belongs to the layer of the weight in its
label; a step without such a weight belongs to the layer before it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from unitp.cost import Machine
from unitp.explain.patterns import Places, layer_of
from unitp.graph.graph import Graph
from unitp.layout import Layout
from unitp.planner.prices.work import Prices
from unitp.plans import Plan
from unitp.program.analysis import per_call
from unitp.program.instructions import Collective, Instruction, Local, Program, kind_of, writes
from unitp.program.lower import lower
from unitp.program.memory import Memory, local_bytes, peak
from unitp.report.drawing import Bar, bars

MOST_STEPS = 120
"""Of a longer block, only this many steps that take longest are shown."""


class Step(msgspec.Struct, frozen=True):
    """One instruction of a block.

    kind      "compute", "move" (a collective) or "copy" (a slice, a mask)
    at        its begin in seconds, from that of its block
    bytes     of a collective: the input of the rank whose input is largest
    layout    of its result, in words; without intervals if that is long (the bars show them)
    """

    kind: str
    what: str
    short: str
    seconds: float
    at: float
    axis: str
    bytes: int
    shape: tuple[int, ...]
    layout: str
    bars: tuple[Bar, ...]


class Block(msgspec.Struct, frozen=True):
    """Consecutive steps: a layer, or all that is before or after the layers. `moving`: seconds of its collectives."""

    name: str
    at: float
    seconds: float
    moving: float


class Move(msgspec.Struct, frozen=True):
    """The collectives of tensors with one label, in one call of a phase."""

    what: str
    kind: str
    axis: str
    count: int
    bytes: int
    seconds: float


class PhasePage(msgspec.Struct, frozen=True):
    """What the page shows of a phase.

    predicted   seconds of a call, as the plan has them; `seconds` are those of the machine that the page is priced on
    moving      seconds of collectives
    layer       the block that `steps` show; `alike` blocks are equal to it
    left_out    the number of its steps that are not shown
    """

    name: str
    sizes: dict[str, int]
    weight: float
    predicted: float
    seconds: float
    moving: float
    blocks: tuple[Block, ...]
    layer: str
    alike: int
    layer_seconds: float
    steps: tuple[Step, ...]
    left_out: int
    moves: tuple[Move, ...]
    memory: tuple[Memory, ...]


def phase_page(plan: Plan, graph: Graph, name: str, machine: Machine) -> PhasePage:
    """Return what the page shows of one phase of a plan, priced on `machine`."""
    program = lower(graph, plan, name)
    story = _Story(program, graph, machine)
    planned = plan.phase(name)
    number = story.typical()
    layer = story.blocks[number]
    steps, left_out = story.steps(layer[1])
    return PhasePage(
        name=name,
        sizes=planned.phase.sizes,
        weight=planned.phase.weight,
        predicted=planned.seconds,
        seconds=sum(story.seconds),
        moving=sum(s for i, s in zip(story.instructions, story.seconds, strict=True) if isinstance(i, Collective)),
        blocks=story.timeline(),
        layer=layer[0],
        alike=sum(story.signature(members) == story.signature(layer[1]) for _, members in story.blocks),
        layer_seconds=sum(story.seconds[i] for i in layer[1]),
        steps=steps,
        left_out=left_out,
        moves=story.moves(),
        memory=tuple(peak(program, rank) for rank in range(program.mesh.size)),
    )


class _Story:
    """The instructions of a call in order, with their seconds, labels and blocks."""

    def __init__(self, program: Program, graph: Graph, machine: Machine) -> None:
        self.program, self.places = program, Places(graph)
        prices = Prices(machine, program.mesh)
        self.instructions = [instruction for _, instruction in per_call(program)]
        self.seconds = [prices.instruction(i, program.values) for i in self.instructions]
        self.homes = {p.name: p.name for p in graph.parameters}
        self.blocks = self._blocks()

    def source(self, instruction: Instruction) -> str:
        """Return the graph's value that an instruction produces or converts."""
        name = instruction.outputs[0] if isinstance(instruction, Local) else instruction.input
        return re.sub(r"(?<=.)(@\d+|:[\w.:]*)$", "", name)

    def label(self, instruction: Instruction) -> str:
        name = self.places.label(self.source(instruction))
        if not isinstance(instruction, Local):
            return f"{kind_of(instruction)} of {name}"
        made = self.places.producer.get(self.source(instruction))
        return name if made is None or made.op == instruction.op else f"{instruction.op} of {name}"

    def _blocks(self) -> list[tuple[str, list[int]]]:
        """Return (name, instruction numbers) of all that is before the layers, of each layer, and of all that is after them."""
        found: dict[int | None, list[int]] = {}
        now: int | None = None
        last = -1
        for number, instruction in enumerate(self.instructions):
            name = self.source(instruction)
            node = self.places.producer.get(name)
            layer = self.places.layer(node) if node else layer_of(name) if name in self.homes else now
            unknown = node is not None and layer is None and isinstance(instruction, Local)
            if layer is not None and layer >= last:
                now = last = layer
            elif unknown and now is not None:
                now = last = LAST
            found.setdefault(now, []).append(number)
        names = {None: "before the layers" if len(found) > 1 else "all of it", LAST: "after the layers"}
        return [(names.get(key) or f"layer {key}", members) for key, members in found.items()]

    def signature(self, members: Sequence[int]) -> tuple[object, ...]:
        """Return the labels and seconds of a block; blocks with equal signatures count as alike."""
        return tuple((self.label(self.instructions[i]), round(self.seconds[i], 12)) for i in members)

    def typical(self) -> int:
        """Return the number of the typical layer: the one in the middle of the largest set of equal layers."""
        signatures = [self.signature(members) for _, members in self.blocks]
        layers = [n for n, (name, _) in enumerate(self.blocks) if name.startswith("layer")] or [0]
        most, _ = Counter(signatures[n] for n in layers).most_common(1)[0]
        alike = [n for n in layers if signatures[n] == most]
        return alike[len(alike) // 2]

    def timeline(self) -> tuple[Block, ...]:
        at, made = 0.0, []
        for name, members in self.blocks:
            took = sum(self.seconds[i] for i in members)
            moving = sum(self.seconds[i] for i in members if isinstance(self.instructions[i], Collective))
            made.append(Block(name, at, took, moving))
            at += took
        return tuple(made)

    def steps(self, members: Sequence[int]) -> tuple[tuple[Step, ...], int]:
        keep = set(sorted(members, key=lambda i: -self.seconds[i])[:MOST_STEPS])
        at, made = 0.0, []
        for i in members:
            if i in keep:
                made.append(self._step(self.instructions[i], self.seconds[i], at))
            at += self.seconds[i]
        return tuple(made), len(members) - len(made)

    def _step(self, instruction: Instruction, seconds: float, at: float) -> Step:
        value = self.program.values[writes(instruction)[0]]
        moves = isinstance(instruction, Collective)
        return Step(
            kind="move" if moves else "compute" if isinstance(instruction, Local) else "copy",
            what=self.label(instruction),
            short=kind_of(instruction) if moves else short(self.label(instruction)),
            seconds=seconds,
            at=at,
            axis="" if isinstance(instruction, Local) or not hasattr(instruction, "axis") else instruction.axis,
            bytes=self._given(instruction) if moves else 0,
            shape=value.shape,
            layout=brief(value.layout),
            bars=bars(value.layout, value.shape, self.program.mesh),
        )

    def _given(self, instruction: Instruction) -> int:
        """Return the bytes of a collective's input on the rank where it is largest."""
        assert isinstance(instruction, Collective)
        return max(local_bytes(self.program, instruction.input, r) for r in range(self.program.mesh.size))

    def moves(self) -> tuple[Move, ...]:
        """Return the collectives by label, in descending order of seconds."""
        sums: dict[tuple[str, str, str], list[float]] = {}
        for instruction, seconds in zip(self.instructions, self.seconds, strict=True):
            if isinstance(instruction, Collective):
                key = (self.places.label(self.source(instruction)), kind_of(instruction), instruction.axis)
                sums[key] = list(np.add(sums.get(key, [0, 0, 0.0]), [1, self._given(instruction), seconds]))
        found = [Move(*key, int(n), int(size), took) for key, (n, size, took) in sums.items()]
        return tuple(sorted(found, key=lambda m: -m.seconds))


def short(label: str) -> str:
    """Return a shorter label: `MatMul ffn_down` for `MatMul blk.*.ffn_down.weight`."""
    return re.sub(r"\S*\*\.|\.weight\b", "", label)


def brief(layout: Layout) -> str:
    """Return a layout in words, without intervals if that is longer than `MOST_WORDS` letters."""
    full = layout.words
    return full if len(full) <= MOST_WORDS else re.sub(r"\[[\d: ]+\]", "", full)


MOST_WORDS = 40
"""The most letters of a layout with its intervals."""

LAST = 1 << 30
"""The number of what comes after all layers."""
