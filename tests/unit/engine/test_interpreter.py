"""The interpreter's promises: constants once, memory by liveness, states in place, no calls for what is not held."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from unitp.engine.constants import Constants
from unitp.engine.eager import EagerEngine
from unitp.engine.interpreter import Runner
from unitp.engine.overrides import Overrides, Prepared
from unitp.engine.transport import Alone
from unitp.errors import InputError, ProgramError, RankError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.layout import Layout, Split
from unitp.mesh import Mesh
from unitp.plans import Phase, unsplit
from unitp.program.instructions import AllGather, Local, Program, Value
from unitp.program.lower import lower
from unitp.testing.operators import kit

NUMPY = kit("numpy")
P = NUMPY.primitives


class Calls:
    """Primitives that note the names of what is called."""

    def __init__(self):
        self.names: list[str] = []

    def __getattr__(self, name):
        def noted(*args, **kwargs):
            self.names.append(name)
            return getattr(P, name)(*args, **kwargs)

        return noted


class Track:
    """A progress page that remembers."""

    def __init__(self):
        self.seen: list[int] = []

    def at(self, instruction: int) -> None:
        self.seen.append(instruction)


def program_of(graph: Graph, sizes=None, dtype="float64") -> Program:
    return lower(graph, unsplit(graph, [Phase("main", sizes or {})]), "main", sizes or {}, dtype=dtype)


def engine_of(graph: Graph, arrays, primitives=P, overrides=None, progress=None, capacity=8) -> EagerEngine:
    """An engine of one rank with parameters loaded and states allocated."""
    engine = EagerEngine(primitives, overrides or Overrides(), Alone(), 0, Mesh(), progress)
    for parameter in graph.parameters:
        engine.load(parameter.name, arrays[parameter.name])
    for state in graph.states:
        engine.allocate(
            0, state.input, tuple(capacity if isinstance(d, str) else d for d in state.type.shape), "float64"
        )
    return engine


def mlp() -> Graph:
    """x W1^T W2 + W1[ids]: one weight used through its transpose and by row, one as it is stored."""
    b = Builder("mlp")
    x, ids = b.input("x", "float32", ("batch", 4)), b.input("ids", "int64", ("batch",))
    first, second = b.random("first", (6, 4), seed=1), b.random("second", (6, 4), seed=2)
    y = b.MatMul(b.MatMul(x, b.Transpose(first, perm=(1, 0))), second)
    return b.graph(b.Add(y, b.Mul(b.Gather(first, ids, axis=0), b.Sqrt(b.Abs(b.random("scale", (4,), seed=3))))))


ARRAYS = {
    name: np.random.default_rng(5).normal(size=s)
    for name, s in [("first", (6, 4)), ("second", (6, 4)), ("scale", (4,))]
}


def mlp_inputs(batch):
    rng = np.random.default_rng(batch)
    return {"x": rng.normal(size=(batch, 4)), "ids": rng.integers(0, 6, batch)}


def mlp_result(inputs):
    rows = ARRAYS["first"][inputs["ids"]] * np.sqrt(np.abs(ARRAYS["scale"]))
    return inputs["x"] @ ARRAYS["first"].T @ ARRAYS["second"] + rows


# constants


def test_what_depends_on_parameters_only_runs_once_for_all_programs():
    graph, calls = mlp(), Calls()
    engine = engine_of(graph, ARRAYS, calls)
    for batch in (1, 3):
        engine.compile(str(batch), program_of(graph, {"batch": batch}))
    for batch in (1, 3, 1):
        inputs = mlp_inputs(batch)
        (found,) = engine.run(str(batch), inputs).values()
        assert np.allclose(found, mlp_result(inputs), rtol=1e-13, atol=0)
    assert [calls.names.count(name) for name in ("sqrt", "abs", "transpose")] == [1, 1, 1]


@pytest.mark.parametrize("overrides", [Overrides(), NUMPY.overrides], ids=["as stored", "packed"])
def test_a_parameter_is_stored_once(overrides):
    graph = mlp()
    engine = engine_of(graph, ARRAYS, overrides=overrides)
    engine.compile("a", program_of(graph, {"batch": 2}))
    constants = engine.constants
    first, second = constants["first"], constants["second"]
    assert np.shares_memory(first, constants.operand("first", True))
    assert np.shares_memory(second, constants.operand("second", False))
    inputs = mlp_inputs(2)
    (found,) = engine.run("a", inputs).values()
    assert np.allclose(found, mlp_result(inputs), rtol=1e-13, atol=0)


def test_a_backend_may_pack_into_something_of_its_own():
    class Packed:
        def __init__(self, weight):
            self.weight = weight

    def pack(p, weight, transposed):
        return Packed(weight if transposed else weight.T.copy()), weight

    overrides = Overrides(pack)

    @overrides("MatMul", "float64")
    def matmul(p, ctx, x, y):
        return x @ y.weight.T

    graph = mlp()
    engine = engine_of(graph, ARRAYS, overrides=overrides)
    engine.compile("a", program_of(graph, {"batch": 2}))
    inputs = mlp_inputs(2)
    (found,) = engine.run("a", inputs).values()
    assert np.allclose(found, mlp_result(inputs), rtol=1e-13, atol=0)


def test_the_caller_may_use_the_array_of_a_parameter_again():
    graph, mine = mlp(), {name: array.copy() for name, array in ARRAYS.items()}
    engine = engine_of(graph, mine)
    mine["first"][:] = 0
    engine.compile("a", program_of(graph, {"batch": 2}))
    inputs = mlp_inputs(2)
    (found,) = engine.run("a", inputs).values()
    assert np.allclose(found, mlp_result(inputs), rtol=1e-13, atol=0)


def test_an_output_that_is_a_constant():
    b = Builder("constant")
    graph = b.graph(b.Neg(b.random("w", (3,), seed=1)), b.Identity(b.input("x", "float32", (2,))))
    engine = engine_of(graph, {"w": np.arange(3.0)})
    engine.compile("a", program_of(graph))
    assert [array.tolist() for array in engine.run("a", {"x": np.ones(2)}).values()] == [[0, -1, -2], [1, 1]]


# values


def test_a_value_is_dropped_after_its_last_read():
    b = Builder("chain")
    x = b.input("x", "float32", (1000,))
    y = b.Exp(x)
    for _ in range(20):
        y = b.Add(b.Neg(y), y)
    graph = b.graph(y)
    alive, most, finalizers = set(), 0, []

    class Counting:
        def __getattr__(self, name):
            def counted(*args):
                nonlocal most
                out = getattr(P, name)(*args)
                alive.add(id(out))
                finalizers.append(weakref.finalize(out, alive.discard, id(out)))
                most = max(most, len(alive))
                return out

            return counted

    program = program_of(graph)
    runner = Runner(program, 0, Counting(), Overrides(), Alone())
    runner.fold(Constants(P, Overrides()))
    runner.run({"x": np.zeros(1000)})
    assert most <= 3


def test_progress_and_errors_name_the_instruction():
    b = Builder("faulty")
    x = b.input("x", "float32", (3,))
    graph = b.graph(b.op("Neg", b.op("Exp", b.op("Abs", x), name="third"), name="last"))
    overrides, track = Overrides(), Track()

    @overrides("Exp", "float64")
    @Prepared
    def exp(p, ctx):
        def fails(x):
            raise ValueError("the kernel broke")

        return fails

    engine = engine_of(graph, {}, overrides=overrides, progress=track)
    engine.compile("a", program_of(graph))
    with pytest.raises(
        RankError, match=r"rank 0 failed in instruction 1, %third = Exp\(%abs_0\): ValueError: the kernel"
    ) as error:
        engine.run("a", {"x": np.ones(3)})
    assert "float64[3]" in error.value.hint
    assert track.seen == [0, 1]


def test_what_is_missing_is_an_error_that_names_it():
    graph = mlp()
    program = program_of(graph, {"batch": 2})
    engine = EagerEngine(P, Overrides(), Alone(), 0, Mesh())
    with pytest.raises(ProgramError, match='parameter "first" was not loaded'):
        engine.compile("a", program)
    engine = engine_of(graph, ARRAYS)
    engine.compile("a", program)
    with pytest.raises(InputError, match="input ids"):
        engine.run("a", {"x": np.zeros((2, 4))})
    with pytest.raises(InputError, match="mesh tp=2"):
        engine.compile("b", Program("", Mesh(tp=2), "", {}, {}, (), (), (), (), ()))


# states


def cache(read_before: bool = False) -> Graph:
    b = Builder("cache")
    past, new, at = (
        b.state("past", "float32", ("batch", 2, "cache", 3)),
        b.input("new", "float32", ("batch", 2, "seq", 3)),
        "at",
    )
    b.input(at, "int64", ("batch",))
    present = b.TensorScatter(past, new, at, axis=2)
    b.keep(past, present)
    old = b.ReduceSum(past, axes=(2,), keepdims=0) if read_before else b.ReduceSum(new, axes=(2,), keepdims=0)
    return b.graph(b.Slice(present, axes=(2,), starts=(0,), ends=("live",)), old)


@pytest.mark.parametrize("read_before", [False, True], ids=["in place", "old value read too"])
def test_states_are_kept_between_calls_and_shared_by_programs(read_before):
    graph, calls = cache(read_before), Calls()
    engine = engine_of(graph, {}, calls, capacity=0)
    engine.allocate(0, "past", (2, 2, 8, 3), "float64")
    for seq in (1, 2):
        sizes = {"batch": 2, "cache": 8, "seq": seq, "live": 6}
        engine.compile(str(seq), program_of(graph, sizes))
    wanted, rng = np.zeros((2, 2, 8, 3)), np.random.default_rng(1)
    buffer = engine.states.of(0)["past"]
    kept = []
    for seq, at in ((2, [0, 1]), (1, [2, 3]), (2, [3, 4])):
        before = wanted.sum(2)
        new = rng.normal(size=(2, 2, seq, 3))
        for entry, start in enumerate(at):
            wanted[entry, :, start : start + seq] = new[entry]
        seen, old = engine.run(str(seq), {"new": new, "at": np.array(at)}).values()
        assert np.array_equal(seen, wanted[:, :, :6])
        assert np.allclose(old, before if read_before else new.sum(2), rtol=1e-14, atol=1e-14)
        kept.append((seen, seen.copy()))
    assert engine.states.of(0)["past"] is buffer
    assert all(np.array_equal(a, b) for a, b in kept), "an output was changed by a later call"
    engine.reset(0)
    seen, _ = engine.run("1", {"new": np.ones((2, 2, 1, 3)), "at": np.zeros(2, np.int64)}).values()
    assert seen.sum() == 12


def test_a_state_without_rows_is_none_of_the_callers_arrays():
    b = Builder("last")
    old, new = b.state("old", "float32", ("n",)), b.input("new", "float32", ("n",))
    b.keep(old, b.Slice(new, axes=(0,), starts=(0,), ends=("n",)))
    graph = b.graph(b.Neg(old))
    engine = engine_of(graph, {}, capacity=0)
    engine.allocate(0, "old", (3,), "float64")
    engine.compile("a", program_of(graph, {"n": 3}))
    given = np.arange(3.0)
    engine.run("a", {"new": given})
    given += 7
    (found,) = engine.run("a", {"new": given}).values()
    assert found.tolist() == [0, -1, -2]


def test_a_run_wants_a_bank_with_the_states_that_it_reads():
    engine = EagerEngine(P, Overrides(), Alone(), 0, Mesh())
    engine.compile("a", program_of(cache(), {"batch": 1, "cache": 4, "seq": 1, "live": 4}))
    with pytest.raises(InputError, match="bank 3 has no state past"):
        engine.run("a", {"new": np.ones((1, 2, 1, 3)), "at": np.zeros(1, np.int64)}, 3)


# ranks


def test_a_rank_that_holds_nothing_calls_nothing():
    mesh, split = Mesh(tp=2), Split(("tp",), ((0, 3), (3, 3)))
    held, whole = Value("float64", (3, 2), Layout((split, None))), Value("float64", (3, 2), Layout.replicated(2))
    steps = (Local("Neg", ("x",), ("y",), {}, {"d0": split}), AllGather("y", "z", "tp", 0))
    program = Program("", mesh, "main", {}, {"x": held, "y": held, "z": whole}, ("x",), (), (), ("y", "z"), steps)
    given = []

    class Group(Alone):
        def all_gather(self, x, axis):
            given.append(x)
            return [np.arange(6.0).reshape(3, 2), np.zeros((3, 2))]

    calls = Calls()
    engine = EagerEngine(calls, Overrides(), Group(), 1, mesh)
    engine.compile("a", program)
    found = engine.run("a", {"x": np.zeros((0, 2))})
    assert found["y"].shape == (0, 2)
    assert np.array_equal(found["z"], np.arange(6.0).reshape(3, 2))
    assert given[0].shape == (3, 2)
    assert "neg" not in calls.names


def test_an_axis_of_size_one_needs_no_transport():
    mesh, split = Mesh(dp=1), Split(("dp",), ((0, 3),))
    held, whole = Value("float64", (3,), Layout((split,))), Value("float64", (3,), Layout.replicated(1))
    program = Program(
        "", mesh, "main", {}, {"x": held, "y": whole}, ("x",), (), (), ("y",), (AllGather("x", "y", "dp", 0),)
    )
    unused: Any = None
    engine = EagerEngine(P, Overrides(), unused, 0, mesh)
    engine.compile("a", program)
    assert engine.run("a", {"x": np.arange(3.0)})["y"].tolist() == [0, 1, 2]
