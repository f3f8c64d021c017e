"""Checks whether a program computes its graph: each operator is looked up with the same inputs and attributes.

A conversion changes where a value is, not what it is. So every value of a program stands for a value of the graph. Each
local operator stands for a node, or for a part of a node whose reduced dim is split (`unitp.graph.ops.expansions`; top-k
and arg-max by the candidates of each part).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from unitp.errors import ProgramError
from unitp.graph.graph import Graph
from unitp.graph.ops.expansions import expand
from unitp.graph.values import Attribute, Node, TensorType, held_as
from unitp.program.instructions import Local, Program
from unitp.program.text import at


def check_graph(program: Program, graph: Graph, outputs: tuple[str, ...] | None = None) -> None:
    """Check that `program` (well formed) computes `graph`. Raises ProgramError that names the instruction.

    `outputs` are the graph's outputs that the program must give, in order (default: any).
    """
    if program.graph != graph.hash:
        raise ProgramError(f"the program is of graph {program.graph}, not {graph.hash}")
    if missing := [s for s in graph.symbols if s not in program.sizes]:
        raise ProgramError(f"the program gives no size for {', '.join(missing)}")
    floats = _float(program)
    _check_given(program, graph, floats)
    bound = [_bound(node, program.sizes, floats) for node in graph.nodes]
    wanted = {part.outputs[0]: part for node in bound for part in _parts(program, node)}
    stands_for = {name: name for name in (*program.inputs, *program.parameters, *(old for old, _ in program.states))}
    for number, instruction in enumerate(program.instructions):
        if not isinstance(instruction, Local):
            stands_for[instruction.output] = stands_for[instruction.input]
            continue
        inputs = tuple(stands_for.get(name, "") for name in instruction.inputs)
        found = Node(instruction.op, inputs, instruction.outputs, instruction.attrs)
        if (node := wanted.get(instruction.outputs[0])) != found:
            reason = f"the graph has {node}" if node else "the graph has no such value"
            raise ProgramError(f"{at(program, number)}: it is {found}; {reason}")
        stands_for |= {name: name for name in instruction.outputs}
    _check_ends(program, graph, outputs, stands_for)


def _check_ends(program: Program, graph: Graph, outputs: tuple[str, ...] | None, stands_for: Mapping[str, str]) -> None:
    left = tuple(stands_for[name] for name in program.outputs)
    if outputs is not None and left != outputs:
        raise ProgramError(f"the program gives the outputs {', '.join(left)} instead of {', '.join(outputs)}")
    for name in program.outputs:
        if stands_for[name] not in graph.outputs:
            raise ProgramError(
                f'output "{name}" stands for "{stands_for[name]}", which is not an output of {graph.name}'
            )
    found = {old: stands_for[new] for old, new in program.states}
    wanted = {state.input: state.output for state in graph.states}
    for old in {**wanted, **found}:
        if found.get(old) != wanted.get(old):
            raise ProgramError(f'state "{old}" is replaced by "{found.get(old)}", the graph says "{wanted.get(old)}"')


def _check_given(program: Program, graph: Graph, floats: str) -> None:
    """Check the types of inputs, parameters and states against the graph, and that each is what the program says."""
    groups: tuple[tuple[str, tuple[str, ...], Mapping[str, TensorType]], ...] = (
        ("input", program.inputs, graph.inputs),
        ("parameter", program.parameters, {p.name: p.type for p in graph.parameters}),
        ("state", tuple(old for old, _ in program.states), {s.input: s.type for s in graph.states}),
    )
    for what, names, types in groups:
        for name in names:
            if name not in types:
                raise ProgramError(f'{graph.name} has no {what} "{name}"')
            value, type_ = program.values[name], types[name]
            dtype = held_as(type_.dtype, floats)
            shape = type_.sized(program.sizes)
            if (value.dtype, value.shape) != (dtype, shape):
                have = f"{value.dtype}{list(value.shape)}"
                raise ProgramError(f'{what} "{name}" is {have}, the graph gives {dtype}{list(shape)}')


def _float(program: Program) -> str:
    """Return the dtype that float32 becomes: float64 if a program widens all floats."""
    return "float32" if any(value.dtype == "float32" for value in program.values.values()) else "float64"


def _bound(node: Node, sizes: Mapping[str, int], floats: str) -> Node:
    """Return a node with its symbols as numbers and, if floats are widened, with widened casts."""

    def bind(key: str, value: Attribute) -> Attribute:
        if isinstance(value, tuple):
            return tuple(sizes[v] if isinstance(v, str) else v for v in value)
        if key == "to" and value == "float32":
            return floats
        return sizes.get(value, value) if isinstance(value, str) else value

    return msgspec.structs.replace(node, attrs={key: bind(key, value) for key, value in node.attrs.items()})


def _parts(program: Program, node: Node) -> Iterator[Node]:
    """Yield the operators that compute a node in this program."""
    first = program.values.get(node.inputs[0]) if node.inputs else None
    if first is not None and any(f"{node.name}:{part}" in program.values for part in ("0", "part")):
        yield from expand(node, first.shape)
    else:
        yield node
