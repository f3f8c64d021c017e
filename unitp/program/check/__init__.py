"""Checks whether a program is right: first its fields, then every layout, by code that shares none with lowering.

    fields     types, names, dtypes, axes, dims, splits                                   unitp.program.check.form
    layouts    each operator's inputs and outputs from rule and splits; the output of     unitp.program.check.layouts
               each collective, slice and mask; nothing partial is read as whole
    graph      each operator is a node of the graph, on the values that it names          unitp.program.check.meaning
    memory     no rank exceeds a limit                                                    unitp.program.memory

A program is one list for all ranks, so all ranks of a group meet in the same collectives in the same order, with shapes that
follow from one layout. Programs that come one per rank are compared (`check_ranks`). Deadlocks and mismatches of ranks are thus
errors before anything runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from unitp.errors import ProgramError
from unitp.graph.graph import Graph
from unitp.program.check.form import Fields, decoded
from unitp.program.check.layouts import Layouts
from unitp.program.check.meaning import check_graph
from unitp.program.instructions import Collective, Program, encode
from unitp.program.memory import peak
from unitp.program.text import at


def check(
    program: Program,
    graph: Graph | None = None,
    *,
    outputs: tuple[str, ...] | None = None,
    memory_limit: int | None = None,
) -> None:
    """Check `program`. Raises ProgramError that names the first wrong instruction.

    If a `graph` is given, the program must compute it, and give the graph's `outputs`, if these are named, in this order. No rank may
    need more than `memory_limit` bytes.
    """
    program = decoded(program)
    fields, layouts = Fields(program), Layouts(program)
    fields.begin()
    for number, instruction in enumerate(program.instructions):
        if problem := fields.problem(instruction) or layouts.problem(number):
            raise ProgramError(f"{at(program, number)}: {problem}")
    fields.end()
    if graph is not None:
        check_graph(program, graph, outputs)
    if memory_limit is not None:
        _check_memory(program, memory_limit)


def _check_memory(program: Program, limit: int) -> None:
    for rank in range(program.mesh.size):
        if (need := peak(program, rank)).peak > limit:
            raise ProgramError(
                f"rank {rank} needs {need.peak} bytes, {limit} are allowed: {need.parameters} of parameters, "
                f"{need.states} of states, {need.activations} of activations at {at(program, need.at)}",
                hint="Use more ranks, a smaller context or a smaller batch.",
            )


def check_ranks(programs: Sequence[Program]) -> None:
    """Check that the programs of the ranks, by rank number, are equal. Raises ProgramError if their collectives would not meet.

    The message names the rank that differs from most others (of as many, from one that is right by itself), and the first
    instruction in which it does.
    """
    programs = [decoded(program) for program in programs]
    written = [encode(program) for program in programs]
    counts = Counter(written)
    common = [written.index(w) for w, count in counts.items() if count == max(counts.values())]
    like = next((rank for rank in common if len(common) > 1 and _right(programs[rank])), common[0])
    for rank, program in enumerate(programs):
        if written[rank] != written[like]:
            raise ProgramError(f"rank {rank} {_difference(program, programs[like])}, unlike rank {like}")
    if len(programs) not in (1, programs[0].mesh.size):
        raise ProgramError(f"{len(programs)} programs for the {programs[0].mesh.size} ranks of {programs[0].mesh}")


def _right(program: Program) -> bool:
    try:
        check(program)
    except ProgramError:
        return False
    return True


def _difference(program: Program, other: Program) -> str:
    """Return the first difference between the programs of two ranks; differences at which collectives do not meet come first."""
    mine, theirs = list(program.instructions), list(other.instructions)
    number = next(
        (n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
    )
    if len(mine) == len(theirs) == number:
        return "has another mesh, other values, inputs or outputs"
    here, there = at(program, number), at(other, number)
    if mine[number:] == theirs[number + 1 :]:
        return f"leaves out {there}"
    if mine[number + 1 :] == theirs[number:]:
        return f"has {here} besides"
    moved = any(isinstance(i, Collective) for i in (*mine[number : number + 1], *theirs[number : number + 1]))
    return f"{'meets' if moved else 'has'} {here} in place of {there}"
