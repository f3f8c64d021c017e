"""A session runs graphs and decoders on real ranks: the same numbers however prompts are cut, batched or kept."""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from calls import calls

from unitp.engine.sampling import Sampling
from unitp.errors import BackendError, InputError, PlanError, RankError
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Plan
from unitp.plugins import discover
from unitp.plugins.spec import BackendSpec
from unitp.ranks.interpreters import ask_interpreter, describe, versions_in
from unitp.session.launch import launch
from unitp.session.session import Session
from unitp.testing.models import EAGER_TO_SPLIT
from unitp.wire.channel import Channel
from unitp.wire.messages import Close

pytestmark = pytest.mark.system

PROMPT = [5, 17, 3, 88, 41, 2, 60, 9, 33, 71, 12]


def started(graph: Graph, mesh: str = "tp=2", **options: object) -> Session:
    """A session whose ranks really share the work, small as the graph is."""
    return launch(graph, plan(Request(graph, Mesh.parse(mesh), machine=EAGER_TO_SPLIT)), **options)  # type: ignore[arg-type]


Watched = Callable[[], AbstractContextManager[object]]


def shared(mesh: str, dtype: str) -> Callable[..., Iterator[Session]]:
    """A fixture: a session of the decoder that tests of this file share."""

    def session(tiny: Graph, watched_for_long: Watched) -> Iterator[Session]:
        with watched_for_long(), started(tiny, mesh, dtype=dtype) as opened:
            yield opened

    return pytest.fixture(scope="module")(session)


one, two = shared("", "float32"), shared("tp=2", "float32")
one_exact, two_exact, batches = shared("", "float64"), shared("tp=2", "float64"), shared("dp=2", "float64")


def reference(one: Session, prompt: list[int], count: int) -> list[int]:
    """Greedy tokens, by running the whole sequence anew for each."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(one.run(input_ids=[ids], last=True)["logits"][0, -1].argmax()))
    return ids[len(prompt) :]


def test_generation_by_steps_equals_running_the_whole_sequence(one: Session, two: Session) -> None:
    wanted = reference(one, PROMPT, 6)
    for session in (one, two):
        assert list(session.generate(PROMPT, 6)) == wanted


def test_so_does_that_of_a_batch_on_two_axes(tiny: Graph, one: Session) -> None:
    wanted = reference(one, PROMPT, 6)
    with started(tiny, "dp=2,tp=2") as session:
        steps = list(session.generate([PROMPT] * 2, 6))
        assert [list(row) for row in zip(*steps, strict=True)] == [wanted] * 2


def test_one_prompt_gives_plain_tokens_and_a_finish_reason(one: Session) -> None:
    tokens = one.generate(PROMPT, 4)
    made = list(tokens)
    assert all(isinstance(token, int) for token in made)
    assert tokens.generation.finish_reasons == ["length"]
    assert tokens.generation.timing.prefill_tokens == len(PROMPT)
    assert tokens.generation.timing.decode_tokens == 3
    stopped = one.generate(PROMPT, 8, stop_ids=[made[2]])
    assert list(stopped) == made[: made.index(made[2]) + 1]
    assert stopped.generation.finish_reasons == ["stop"]


def test_chunks_do_not_change_logits(two_exact: Session) -> None:
    ids = np.random.default_rng(0).integers(0, 97, (1, 700))
    whole = two_exact.run(input_ids=ids)["logits"].astype(float)
    assert whole.shape == (1, 700, 97)
    two_exact.run(input_ids=ids[:, :3])
    rest = two_exact.run(input_ids=ids[:, 3:], keep=True)["logits"].astype(float)
    np.testing.assert_allclose(rest, whole[:, 3:], rtol=0, atol=1e-12)
    last = two_exact.run(input_ids=ids, last=True)["logits"].astype(float)
    np.testing.assert_allclose(last[:, 0], whole[:, -1], rtol=0, atol=1e-12)


def test_prompts_of_unlike_lengths_do_not_disturb_each_other(two_exact: Session) -> None:
    prompts = [PROMPT, PROMPT[:1], PROMPT * 60, PROMPT[3:7]]
    alone = [list(two_exact.generate(prompt, 5)) for prompt in prompts]
    together = [list(row) for row in zip(*two_exact.generate(prompts, 5), strict=True)]
    assert together == alone


def test_a_batch_split_over_dp_may_be_uneven(batches: Session, one_exact: Session) -> None:
    prompts = [PROMPT, PROMPT[2:], PROMPT[4:]]
    together = [list(row) for row in zip(*batches.generate(prompts, 4), strict=True)]
    assert together == [list(one_exact.generate(prompt, 4)) for prompt in prompts]


def test_kept_caches_are_not_computed_again(two_exact: Session) -> None:
    prompt = PROMPT[::-1]  # which no other test of this session has left in the caches
    first = list(two_exact.generate(prompt, 4))
    second = prompt + first + [7, 8]
    kept = two_exact.generate(second, 4, keep=True)
    tokens = list(kept)
    assert kept.generation.timing.prefill_tokens == 3  # the last token made was never fed
    assert list(two_exact.generate(second, 4)) == tokens


def test_a_generation_that_is_dropped_leaves_the_session_usable(two: Session) -> None:
    for _ in two.generate(PROMPT, 50):
        break
    wanted = list(two.generate(PROMPT, 3))
    assert list(two.generate(PROMPT, 3)) == wanted


def test_there_are_as_many_programs_as_buckets(tiny: Graph) -> None:
    with started(tiny, "tp=2") as session:
        for length in range(1, 90, 6):
            list(session.generate((PROMPT * 9)[:length], 3))
        sizes = {program.sizes["seq"] for program in session.programs}
        assert sizes == {1, 16, 32, 64, 128}
        assert len(session.programs) == len({tuple(p.sizes.items()) for p in session.programs})
        assert all(stats.traces == len(session.programs) for stats in session.stats())


def test_a_full_context_ends_a_generation_and_refuses_a_prompt(tiny: Graph) -> None:
    with started(tiny, "tp=2", context=20) as session:
        tokens = session.generate(PROMPT, 100)
        assert len(list(tokens)) == 20 - len(PROMPT)
        assert tokens.generation.finish_reasons == ["length"]
        assert list(session.generate((PROMPT * 2)[:20], 5)) == []
        with pytest.raises(InputError, match="21 tokens do not fit into a context of 20"):
            session.generate([1] * 21, 5)


def test_sampling_is_repeatable_and_depends_on_the_seed(two: Session) -> None:
    warm = Sampling(temperature=1.0, top_k=20, top_p=0.9, seed=7)
    first = list(two.generate(PROMPT, 12, sampling=warm))
    assert list(two.generate(PROMPT, 12, sampling=warm)) == first
    assert list(two.generate(PROMPT, 12, sampling=Sampling(temperature=1.0, top_k=20, seed=8))) != first
    everything = Sampling(temperature=1.0, seed=7)
    limited = Sampling(temperature=1.0, top_k=97, seed=7)
    assert list(two.generate(PROMPT, 9, sampling=everything)) == list(two.generate(PROMPT, 9, sampling=limited))


def mlp() -> Graph:
    b = Builder("mlp")
    x = b.input("x", "float32", ("batch", 64))
    mask = b.input("mask", "bool", ("batch", 1))
    up = b.random("up", (64, 512), seed=1)
    y = b.MatMul(b.Where(mask, x, b.Neg(x)), up)
    return b.graph(b.MatMul(y, b.random("down", (512, 128), seed=2)), y)


@pytest.fixture(scope="module")
def layer(watched_for_long: Watched) -> Iterator[Session]:
    """A graph that is not a decoder, on one rank."""
    with watched_for_long(), started(mlp(), "") as session:
        yield session


def test_large_arrays_travel_through_files(layer: Session) -> None:
    graph = mlp()
    x = np.random.default_rng(1).normal(size=(512, 64)).astype(np.float32)
    mask = np.ones((512, 1), bool)
    with launch(graph, plan(Request(graph, Mesh(tp=2)))) as split:
        first, second = (session.run(x=x, mask=mask) for session in (layer, split))
        assert list(first) == list(graph.outputs)
        for name, array in first.items():
            assert np.linalg.norm(np.subtract(array, second[name])) < 1e-5 * np.linalg.norm(array)
        assert {file.name for file in split.cluster.folder.glob("*.arrays")} >= {"rank0.arrays", "driver.arrays"}


def test_all_mistakes_in_inputs_are_told_at_once(layer: Session) -> None:
    with pytest.raises(InputError) as caught:
        layer.run(x=np.zeros((3, 1)), masks=np.zeros((3, 1)))
    text = str(caught.value)
    assert 'there is no input "masks" (Did you mean "mask"?)' in text
    assert "no array is given for mask" in text
    assert "x has 1 in dim 1 but must have 64" in text
    with pytest.raises(InputError, match="mask is float64 but must be bool"):
        layer.run(x=np.zeros((3, 64)), mask=np.zeros((3, 1)))
    with pytest.raises(InputError, match=r"mask has 3 in dim 0 but must have batch = 2"):
        layer.run(x=np.zeros((2, 64)), mask=np.zeros((3, 1), bool))
    layer.run(x=np.zeros((2, 64)), mask=np.zeros((2, 1), bool))


def test_an_output_that_the_graph_does_not_have_is_named(layer: Session) -> None:
    with pytest.raises(InputError, match='"nope" is not an output of mlp'):
        layer.run(x=np.ones((512, 64), np.float32), mask=np.ones((512, 1), bool), outputs=["nope"])


def test_bad_prompts_are_refused(batches: Session) -> None:
    with pytest.raises(InputError, match="1 prompt is fewer than the 2 of axis dp"):
        batches.generate(PROMPT)
    with pytest.raises(InputError, match=r"prompt 1: token 97 is not from 0 to 96"):
        batches.generate([PROMPT, [1, 97]])
    with pytest.raises(InputError, match="there are no tokens"):
        batches.generate([PROMPT, []])
    with pytest.raises(InputError, match="temperature -1"):
        batches.generate([PROMPT, PROMPT], sampling=Sampling(temperature=-1.0, top_p=3.0))
    with pytest.raises(InputError, match="is not a token id"):
        batches.generate(["text"])  # type: ignore[arg-type]  # what a type checker would have refused


def test_a_plan_without_a_certificate_runs(tiny: Graph, two: Session) -> None:
    made = plan(Request(tiny, Mesh(tp=2), machine=EAGER_TO_SPLIT))
    bare = Plan(made.graph, made.mesh, made.parameters, made.states, made.phases)
    with launch(tiny, bare) as session:
        assert list(session.generate(PROMPT, 6)) == list(two.generate(PROMPT, 6))


def test_bad_requests_start_nothing(tiny: Graph, fake: BackendSpec) -> None:
    ours, other = plan(Request(tiny, Mesh(tp=2))), mlp()
    with pytest.raises(PlanError, match="made for another graph"):
        launch(other, ours)
    with pytest.raises(BackendError, match='Did you mean "numpy"'):
        launch(tiny, ours, "numpi")
    with pytest.raises(InputError, match='Did you mean "float64"'):
        launch(tiny, ours, fake, dtype="float65")
    with pytest.raises(InputError, match="a context of 5000 tokens"):
        launch(tiny, ours, fake, context=5000)
    with pytest.raises(BackendError, match="cannot be asked"):
        launch(tiny, ours, fake, python="/nowhere/python")


def test_probe_stats_and_memory(two: Session) -> None:
    assert two.probe(1.5) == [3.0, 3.0]
    list(two.generate(PROMPT, 3))
    assert all(stats.collectives > 0 for stats in two.stats())
    assert all(0 < memory.idle <= memory.now <= memory.peak for memory in two.memory())


def test_a_forgotten_session_is_closed(tiny: Graph, fake: BackendSpec) -> None:
    session = launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake)
    list(session.generate(PROMPT, 2))
    del session
    gc.collect()


def test_a_closed_session_says_so(tiny: Graph, fake: BackendSpec) -> None:
    with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake) as session:
        pass
    with pytest.raises(RankError, match="was closed"):
        session.run(input_ids=[PROMPT])


def test_the_driver_does_not_poll_in_a_call(tiny: Graph, fake: BackendSpec) -> None:
    """It wakes up for the answers of the ranks only. `make bench-overheads` says how long a call of nothing takes."""
    b = Builder("identity")
    graph = b.graph(b.Identity(b.input("x", "int64", ("batch", 1))))
    with launch(graph, plan(Request(graph, Mesh(tp=2), allow_unused=True)), fake) as session:
        session.run(x=[[1]])
        counts = [calls(lambda: session.run(x=[[1]])) for _ in range(5)]
    assert max(counts) - min(counts) <= 0.1 * min(counts)


@pytest.fixture
def interpreter(tmp_path: Path) -> str:
    """Another interpreter, as far as anybody can tell from outside."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_an_interpreter_describes_itself(interpreter: str) -> None:
    answer = ask_interpreter(interpreter)
    assert answer.python == platform.python_version()
    found = {backend.name: backend for backend in answer.backends}
    assert found["numpy"].versions["numpy"] == np.__version__
    assert "mpi4py" in {transport.name: transport for transport in answer.transports}["mpi"].versions


def test_an_interpreter_with_another_unitp_is_refused_by_both_versions(tmp_path: Path) -> None:
    """What driver and ranks say to each other is of their own series of versions."""
    here = discover.installed("unitp")
    described = json.dumps(msgspec.to_builtins(describe()))
    script = tmp_path / "python"

    def answering(text: str) -> str:
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        script.chmod(0o755)
        return str(script)

    assert versions_in(answering(described), discover.backend("numpy"))["numpy"] == np.__version__
    newer = described.replace(f'"unitp": "{here}"', '"unitp": "9.9.0"')
    with pytest.raises(BackendError, match=rf"python has unitp 9\.9\.0, and this is unitp {here}") as caught:
        versions_in(answering(newer), discover.backend("numpy"))
    assert caught.value.hint == f"Run: {script} -m pip install unitp=={here} unitp-numpy"
    broken = described.replace('"broken": {}', '"broken": {"numpy": "ImportError: libmpi.so"}')
    with pytest.raises(BackendError, match=r"backend numpy cannot be loaded in .*: ImportError: libmpi\.so"):
        versions_in(answering(broken), discover.backend("numpy"))


def test_ranks_run_in_the_interpreter_of_the_settings(
    tiny: Graph, interpreter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "unitp" / "unitp.toml"
    config.parent.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config.write_text(f'[backends.numpy]\npython = "{interpreter}"\n')
    with started(tiny, "tp=2") as session:
        assert session.probe() == [2.0, 2.0]
    config.write_text('[backends.numpy]\npython = "/nowhere/python"\n')
    with pytest.raises(BackendError, match="/nowhere/python cannot be asked"):
        started(tiny, "tp=2")


def test_what_ranks_print_is_forwarded_with_their_names(
    tiny: Graph, fake: BackendSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake, verbose=True):
        pass
    errors = capfd.readouterr().err.splitlines()
    assert "[rank0] rank 0 joins" in errors
    assert "[rank1] rank 1 joins" in errors


def test_a_fork_of_the_driver_does_not_end_its_session(tiny: Graph, fake: BackendSpec) -> None:
    with launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake) as session:
        child = os.fork()
        if child == 0:
            session.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert session.probe() == [2.0, 2.0]


def test_closing_that_is_interrupted_leaves_nothing(
    tiny: Graph, fake: BackendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rank has been asked to leave, the other has not."""
    send = Channel.send

    def interrupted(self: Channel[object], message: object) -> None:
        send(self, message)
        if isinstance(message, Close):
            raise KeyboardInterrupt

    session = launch(tiny, plan(Request(tiny, Mesh(tp=2))), fake)
    monkeypatch.setattr(Channel, "send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.close()
    session.close()
