"""Valid programs pass the check, mutated ones do not, and the message names the instruction.

Programs come from random graphs under random legal plans, and from a small decoder as it is really planned. Planted
mistakes of each kind must be refused. Beyond these, random mutations of any field: whatever the check lets pass must
compute the same (ranks are simulated in this process).
"""

import re
from functools import cache

import msgspec
import numpy as np
import pytest
from budget import examples
from hypothesis import assume, given
from hypothesis import strategies as st

from unitp.comparison.metrics import relative_error
from unitp.cost import Machine
from unitp.errors import ProgramError
from unitp.explain.description import light_outputs
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Phase
from unitp.program.check import check, check_ranks
from unitp.program.instructions import AllGather, AllReduce, Collective, Local, Slice, reads
from unitp.program.lower import lower
from unitp.testing.models import tiny
from unitp.testing.random_graphs import random_graph
from unitp.testing.random_plans import random_plan
from unitp.testing.simulate import simulate

MESHES = [Mesh(x=2), Mesh(x=3), Mesh(x=2, y=2)]
NAMED = re.compile(r"instruction \d+, ")
change = msgspec.structs.replace


@cache
def random_program(seed, mesh):
    """A graph and a valid program of it."""
    graph = random_graph(seed)
    return graph, lower(graph, random_plan(graph, mesh, seed), "main", dtype="float64")


@cache
def decoder(mesh, planned):
    """Two layers with 9 query and 3 KV heads, as planned for free links (or at random), and a program of 4 new positions."""
    graph = tiny(width=36, head_dim=4, hidden=50, vocab=64, max_context=32, interleaved=False).graph
    sizes = {"batch": 2, "seq": 4, "cache": 16, "live": 8, "take": 1, "candidates": 3}
    free = Machine(operator_s=0.0, link_latency_s=0.0, link_bytes_per_s=1e15, call_s=0.0)
    made = (
        plan(Request(graph, mesh, [Phase("main", sizes)], machine=free))
        if planned
        else random_plan(graph, mesh, 3, sizes)
    )
    return graph, lower(graph, made, "main", outputs=light_outputs(graph), dtype="float64")


def collectives(program):
    """Collectives that an operator or another conversion reads from."""
    read = {name for i in program.instructions for name in reads(i)}
    return [n for n, i in enumerate(program.instructions) if isinstance(i, Collective) and i.output in read]


def with_instructions(program, instructions, **values):
    return change(program, instructions=tuple(instructions), values={**program.values, **values})


def renamed(instruction, old, new):
    """The instruction reading `new` in place of `old`."""
    if isinstance(instruction, Local):
        return change(instruction, inputs=tuple(new if name == old else name for name in instruction.inputs))
    return change(instruction, input=new) if instruction.input == old else instruction


def replaced(program, number, instruction):
    return with_instructions(program, [instruction if n == number else i for n, i in enumerate(program.instructions)])


# mistakes that must be refused: each takes a valid program and the number of a collective


def dropped(program, number, rng):
    """The collective is left out, and its readers take what it would have read."""
    gone = program.instructions[number]
    rest = [renamed(i, gone.output, gone.input) for n, i in enumerate(program.instructions) if n != number]
    values = {name: value for name, value in program.values.items() if name != gone.output}
    return change(program, instructions=tuple(rest), values=values)


def left_out(program, number, rng):
    return with_instructions(program, [i for n, i in enumerate(program.instructions) if n != number])


def too_late(program, number, rng):
    """The collective changes places with the first that reads from it."""
    out = program.instructions[number].output
    reader = next(n for n, i in enumerate(program.instructions) if out in reads(i))
    order = list(program.instructions)
    order[number], order[reader] = order[reader], order[number]
    return with_instructions(program, order)


def swapped(program, number, rng):
    """The collective and another read from each other's inputs."""
    mine = program.instructions[number]
    others = [n for n in collectives(program) if program.instructions[n].input != mine.input]
    assume(others)
    other = int(rng.choice(others))
    theirs = program.instructions[other]
    once = replaced(program, number, change(mine, input=theirs.input))
    return replaced(once, other, change(theirs, input=mine.input))


def duplicated(program, number, rng):
    order = list(program.instructions)
    return with_instructions(program, [*order[: number + 1], order[number], *order[number + 1 :]])


def duplicated_to_a_new_value(program, number, rng):
    order, twice = list(program.instructions), program.instructions[number]
    again = change(twice, output="again")
    return with_instructions(
        program, [*order[: number + 1], again, *order[number + 1 :]], again=program.values[twice.output]
    )


def wrong_axis(program, number, rng):
    instruction = program.instructions[number]
    others = [a for a, _ in program.mesh.axes if a != instruction.axis] + ["z"]
    return replaced(program, number, change(instruction, axis=str(rng.choice(others))))


def wrong_dim(program, number, rng):
    instruction = program.instructions[number]
    assume(hasattr(instruction, "dim"))
    dims = range(-1, len(program.values[instruction.input].shape) + 1)
    return replaced(
        program, number, change(instruction, dim=int(rng.choice([d for d in dims if d != instruction.dim])))
    )


def wrong_reduction(program, number, rng):
    instruction = program.instructions[number]
    assume(isinstance(instruction, AllReduce))
    new = {"sum": "max", "max": "sum"}[instruction.reduction]
    return replaced(program, number, change(instruction, reduction=new))


def read_as_replicated(program, number, rng):
    """A partial sum that says it is whole."""
    name = program.instructions[number].input
    value = program.values[name]
    assume(value.layout.partial)
    layout = change(value.layout, partial=value.layout.partial[1:])
    return change(program, values={**program.values, name: change(value, layout=layout)})


def off_by_one(split, rng):
    """One bound of a split moved by one row."""
    rows = [list(i) for i in split.intervals]
    at, side = int(rng.integers(len(rows))), int(rng.integers(2))
    rows[at][side] += int(rng.choice([-1, 1]))
    return Split(split.axes, tuple((a, b) for a, b in rows))


def bound_of_a_value(program, number, rng):
    made = {name for i in program.instructions if isinstance(i, Local) for name in i.outputs}
    names = [name for name in made if any(program.values[name].layout.dims)]
    assume(names)
    name = str(rng.choice(sorted(names)))
    value = program.values[name]
    dim = int(rng.choice([d for d, split in enumerate(value.layout.dims) if split]))
    dims = tuple(off_by_one(s, rng) if d == dim else s for d, s in enumerate(value.layout.dims))
    return change(program, values={**program.values, name: change(value, layout=change(value.layout, dims=dims))})


def bound_of_a_factor(program, number, rng):
    split = [n for n, i in enumerate(program.instructions) if isinstance(i, Local) and i.splits]
    assume(split)
    at = int(rng.choice(split))
    local = program.instructions[at]
    factor = str(rng.choice(sorted(local.splits)))
    new = {**local.splits, factor: off_by_one(local.splits[factor], rng)}
    return replaced(program, at, change(local, splits=new))


MISTAKES = [
    dropped,
    left_out,
    too_late,
    swapped,
    duplicated,
    duplicated_to_a_new_value,
    wrong_axis,
    wrong_dim,
    wrong_reduction,
    read_as_replicated,
    bound_of_a_value,
    bound_of_a_factor,
]


def a_program(seed, mesh):
    graph, program = decoder(mesh, seed % 20 == 0) if seed % 10 == 0 else random_program(seed, mesh)
    check(program, graph)
    return graph, program


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
@examples(40)
@given(seed=st.integers(0, 10_000), mesh=st.sampled_from(MESHES))
def test_a_planted_mistake_is_refused_by_name(mistake, seed, mesh):
    graph, program = a_program(seed, mesh)
    rng = np.random.default_rng(seed)
    assume(found := collectives(program))
    mutant = mistake(program, int(rng.choice(found)), rng)
    with pytest.raises(ProgramError) as raised:
        # only two values of one layout exchanged need the graph to be seen
        check(mutant, graph if mistake is swapped else None)
    assert NAMED.search(str(raised.value)) or "never defined" in str(raised.value), raised.value


@examples(60)
@given(seed=st.integers(0, 10_000), mesh=st.sampled_from(MESHES))
def test_ranks_that_would_not_meet_are_refused_by_name(seed, mesh):
    _, program = a_program(seed, mesh)
    rng = np.random.default_rng(seed)
    assume(found := collectives(program))
    number, rank = int(rng.choice(found)), int(rng.integers(mesh.size))
    order = list(program.instructions)
    lists = {
        "leaves out": [*order[:number], *order[number + 1 :]],
        "besides": [*order[: number + 1], order[number], *order[number + 1 :]],
        "in place of": [*order[:number], *order[number : number + 2][::-1], *order[number + 2 :]],
    }
    check_ranks([program] * mesh.size)
    for words, instructions in lists.items():
        if instructions == order:
            continue
        programs = [program] * mesh.size
        programs[rank] = change(program, instructions=tuple(instructions))
        with pytest.raises(ProgramError, match=words) as raised:
            check_ranks(programs)
        # of two ranks with unlike orders, either may be the odd one
        assert re.match(rf".*rank {rank}\b" if mesh.size == 2 else f"rank {rank} ", str(raised.value))
        assert NAMED.search(str(raised.value))


# mutations of anything: seen, or harmless


def another_value(program, number, rng):
    """An instruction reads another value of the same type and layout."""
    instruction = program.instructions[number]
    name = str(rng.choice(list(reads(instruction)) or [""]))
    alike = [n for n, v in program.values.items() if name and n != name and v == program.values[name]]
    assume(alike)
    return replaced(program, number, renamed(instruction, name, str(rng.choice(alike))))


def another_attribute(program, number, rng):
    local = program.instructions[number]
    assume(isinstance(local, Local) and local.attrs)
    key = str(rng.choice(sorted(local.attrs)))
    old = local.attrs[key]
    new = {"float32": "int64", "none": "tanh", "tanh": "none"}.get(old, "none") if isinstance(old, str) else old
    if isinstance(old, tuple):
        new = tuple(int(v) + int(rng.integers(-1, 2)) for v in old)
    elif not isinstance(old, str):
        new = old + int(rng.choice([-1, 1]))
    return replaced(program, number, change(local, attrs={**local.attrs, key: new}))


def another_operator(program, number, rng):
    local = program.instructions[number]
    assume(isinstance(local, Local))
    ops = [
        "Add",
        "Sub",
        "Mul",
        "Max",
        "Exp",
        "Neg",
        "ReduceSum",
        "ReduceMax",
        "Softmax",
        "MatMul",
        "Identity",
        "Rescale",
    ]
    return replaced(program, number, change(local, op=str(rng.choice(ops))))


def turned_operands(program, number, rng):
    local = program.instructions[number]
    assume(isinstance(local, Local) and len(local.inputs) > 1)
    return replaced(program, number, change(local, inputs=local.inputs[::-1]))


def other_splits(program, number, rng):
    """A factor is no longer split, or another is split in its place."""
    local = program.instructions[number]
    assume(isinstance(local, Local) and local.splits)
    factor = str(rng.choice(sorted(local.splits)))
    splits = {f: s for f, s in local.splits.items() if f != factor}
    if rng.random() < 0.5:
        splits[str(rng.choice(["d0", "d1", "d2", "k", "n", "m", "h", "b", "v"]))] = local.splits[factor]
    return replaced(program, number, change(local, splits=splits))


def other_layout(program, number, rng):
    """A value has another layout, wherever it is used."""
    name = str(rng.choice(sorted(program.values)))
    value = program.values[name]
    dims = list(value.layout.dims)
    assume(dims)
    dim, axis = int(rng.integers(len(dims))), str(rng.choice([a for a, _ in program.mesh.axes]))
    choice = rng.random()
    if dims[dim] and choice < 0.6:
        dims[dim] = off_by_one(dims[dim], rng)
    else:
        dims[dim] = None if dims[dim] else Split((axis,)).bind(value.shape[dim], program.mesh)
    partial = (axis,) if choice > 0.9 else value.layout.partial
    layout = Layout(tuple(dims), partial, value.layout.reduction)
    return change(program, values={**program.values, name: change(value, layout=layout)})


def other_order(program, number, rng):
    order = list(program.instructions)
    other = int(rng.integers(len(order)))
    order[number], order[other] = order[other], order[number]
    return with_instructions(program, order)


def slice_for_a_gather(program, number, rng):
    """Another conversion does what this one says it does."""
    instruction = program.instructions[number]
    assume(not isinstance(instruction, Local))
    axis = str(rng.choice([a for a, _ in program.mesh.axes]))
    names = instruction.input, instruction.output
    return replaced(
        program, number, [Slice(*names, 0), AllGather(*names, axis, 0), AllReduce(*names, axis)][int(rng.integers(3))]
    )


def other_ends(program, number, rng):
    turned = {field: getattr(program, field)[::-1] for field in ("outputs", "inputs", "states")}
    field = str(rng.choice(sorted(turned)))
    if field == "states" and rng.random() < 0.5 and len(program.states) > 1:
        (a, x), (b, y), *rest = program.states
        return change(program, states=((a, y), (b, x), *rest))
    return change(program, **{field: turned[field]})


MUTATIONS = [
    another_value,
    another_attribute,
    another_operator,
    turned_operands,
    other_splits,
    other_layout,
    other_order,
    slice_for_a_gather,
    other_ends,
    *MISTAKES,
]


def numbers(graph, program):
    rng = np.random.default_rng(0)
    types = {**graph.inputs, **{p.name: p.type for p in graph.parameters}, **{s.input: s.type for s in graph.states}}
    shapes = {name: tuple(program.sizes.get(d, d) for d in t.shape) for name, t in types.items()}
    return {
        name: rng.normal(size=shapes[name]) if t.dtype == "float32" else rng.integers(0, 3, shapes[name])
        for name, t in types.items()
    }


@cache
def results(seed, mesh):
    graph, program = a_program(seed, mesh)
    arrays = numbers(graph, program)
    return simulate(program, arrays, arrays, arrays)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name, x in a.items():
        y = b[name]
        same = relative_error(y, x) < 1e-12 if x.dtype.kind == "f" else np.array_equal(x, y)
        assert same, f"{name} is wrong, and the check did not see it"


@pytest.mark.timeout(300)
@examples(600)
@given(data=st.tuples(st.integers(0, 200), st.integers(0, 1_000_000)), mesh=st.sampled_from(MESHES))
def test_no_mutant_is_both_wrong_and_unseen(data, mesh):
    seed, mutation = data
    graph, program = a_program(seed, mesh)
    rng = np.random.default_rng(mutation)
    assume(found := collectives(program))
    mutate = MUTATIONS[mutation % len(MUTATIONS)]
    number = int(rng.choice(found)) if mutate in MISTAKES else int(rng.integers(len(program.instructions)))
    mutant = mutate(program, number, rng)
    assume(mutant != program)
    outputs = tuple(name.partition("@")[0] for name in program.outputs)
    try:
        check(mutant, graph, outputs=outputs)
    except ProgramError:
        return
    arrays = numbers(graph, program)
    before, after = results(seed, mesh), simulate(mutant, arrays, arrays, arrays)
    assert_equal(before.outputs, dict(zip(before.outputs, after.outputs.values(), strict=True)))
    assert_equal(before.states, after.states)
