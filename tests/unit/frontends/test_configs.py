"""Models without weights: planned, shown and printed from a config alone; refused, before anything starts, where they would run."""

from __future__ import annotations

import json
import shutil
from math import prod
from pathlib import Path
from typing import Any

import pytest

import unitp
from unitp import cli, plan_file, plans
from unitp.errors import ModelError
from unitp.frontends import known_models as registry
from unitp.frontends.configs import CONFIGS, known_config
from unitp.frontends.huggingface import ARCHITECTURES
from unitp.frontends.huggingface_weights import spelled
from unitp.graph.source import AbsentSource
from unitp.graph.weights import read, require_weights
from unitp.mesh import Mesh
from unitp.testing.models import TINY, write_huggingface

BILLIONS = {
    "llama-3.1-8b": 8.03, "llama-3.1-70b": 70.6, "llama-3.1-405b": 406.0, "qwen2.5-0.5b": 0.49, "qwen2.5-1.5b": 1.54,
    "qwen2.5-3b": 3.09, "qwen2.5-7b": 7.62, "qwen2.5-14b": 14.8, "qwen2.5-32b": 32.8, "qwen2.5-72b": 72.7,
    "mixtral-8x7b": 46.7,
}  # fmt: skip
"""As the model cards say."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with weights."""
    return write_huggingface(tmp_path_factory.mktemp("models") / "tiny", TINY)


@pytest.fixture(scope="module")
def bare(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without weights."""
    folder = tmp_path_factory.mktemp("bare") / "tiny"
    folder.mkdir()
    shutil.copy(whole / "config.json", folder)
    return folder


def stored(name: str) -> dict[str, tuple[int, ...]]:
    """The shapes of what a model would store, by Hugging Face's names."""
    parameters = known_config(name).graph.parameters
    return {spelled(p.name): p.source.shape for p in parameters if isinstance(p.source, AbsentSource)}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_known_config_has_as_many_parameters_as_its_model_card_says(name: str) -> None:
    assert sum(prod(shape) for shape in stored(name).values()) / 1e9 == pytest.approx(BILLIONS[name], rel=0.01)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_known_config_has_the_parameters_that_transformers_makes_of_it(name: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**CONFIGS[name].config | {"num_hidden_layers": 2})
    with torch.device("meta"):
        made = transformers.AutoModelForCausalLM.from_config(config)
    wanted = {n: tuple(p.shape) for n, p in made.named_parameters()}
    found = {n: s for n, s in stored(name).items() if not n.startswith("model.layers.") or int(n.split(".")[2]) < 2}
    if "experts" in str(found):  # in memory, gate and up are one tensor, and the block has another name
        assert sum(map(prod, found.values())) == sum(map(prod, wanted.values()))
        found, wanted = (
            {n: s for n, s in side.items() if not set(n.split(".")) & {"block_sparse_moe", "mlp"}}
            for side in (found, wanted)
        )
    assert found == wanted


def test_names_with_and_without_weights_do_not_clash() -> None:
    assert len(set(registry.names())) == len(registry.names())


def test_a_misspelt_config_is_answered_with_its_name() -> None:
    with pytest.raises(ModelError) as caught:
        unitp.load("lama-3.1-8b")
    assert 'Did you mean "llama-3.1-8b"?' in caught.value.hint


def test_a_config_alone_gives_the_graph_of_its_weights(whole: Path, bare: Path) -> None:
    graphs = [unitp.load(path).graph for path in (whole, bare, bare / "config.json", whole / "config.json")]
    assert len({graph.hash for graph in graphs}) == 1
    assert [graph.name for graph in graphs] == ["tiny"] * 4
    assert not any(isinstance(p.source, AbsentSource) for p in graphs[0].parameters)


def test_a_plan_made_from_a_config_serves_the_weights(whole: Path, bare: Path) -> None:
    made = unitp.plan(unitp.load(bare), Mesh(tp=2), allow_unused=True)
    plans.require(made, unitp.load(whole).graph)


def test_a_config_by_another_name_is_named_for_its_file(bare: Path, tmp_path: Path) -> None:
    shutil.copy(bare / "config.json", tmp_path / "mine.json")
    assert unitp.load(tmp_path / "mine.json").name == "mine"


def test_a_directory_without_weights_keeps_what_lies_beside(bare: Path, tmp_path: Path) -> None:
    shutil.copytree(bare, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    decoder = unitp.load(tmp_path / "model").decoder
    assert decoder is not None
    assert decoder.stop_ids == (3, 4)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_layers_beyond_all_reason_are_refused_at_once(bare: Path, tmp_path: Path, kind: str) -> None:
    about = json.loads((bare / "config.json").read_text()) | {"num_hidden_layers": 1 << 23, "model_type": kind}
    about |= {"num_local_experts": 4, "num_experts_per_tok": 2} if kind == "mixtral" else {}
    (tmp_path / "config.json").write_text(json.dumps(about | {"architectures": [ARCHITECTURES[kind]]}))
    with pytest.raises(ModelError, match="num_hidden_layers is 8388608 but must be at most 1024"):
        unitp.load(tmp_path)


def test_a_file_that_is_no_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"schema": 1, "graph": "x"}')
    with pytest.raises(ModelError, match="unknown key graph"):
        unitp.load(tmp_path / "plan.json")


# nothing starts


def test_no_data_is_read_of_a_source_that_has_none() -> None:
    with pytest.raises(ModelError, match="has no data: because"):
        read(AbsentSource((2, 3), "because"), [(0, 2), (0, 3)])


def test_weights_are_required_where_a_graph_is_launched_or_compared(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*arguments: Any) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr("unitp.ranks.cluster.Cluster.start", started)
    model = unitp.load(bare)
    made = unitp.plan(model, Mesh(tp=2), allow_unused=True)
    with pytest.raises(ModelError, match="tiny cannot be run, its weights are missing"):
        unitp.launch(model, made)
    with pytest.raises(ModelError, match="weights are missing"):
        unitp.compare(model, made, ["numpy"], prompt_ids=[[1, 2]])
    require_weights(unitp.load("smollm2-135m").graph)


IDS = ["--prompt-ids", "1"]
RUNNING = {
    "generate": IDS,
    "chat": [],
    "bench": [],
    "compare": IDS,
    "run": ["--input", "input_ids=x.npy", "-o", "y.npz"],
}


@pytest.mark.parametrize("verb", RUNNING)
@pytest.mark.parametrize("which", ["config.json", "directory", "name"])
def test_no_verb_runs_a_model_without_weights(
    verb: str, which: str, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    import numpy as np

    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "x.npy", np.ones((1, 2), np.int64))
    model = {"config.json": str(bare / "config.json"), "directory": str(bare), "name": "qwen2.5-0.5b"}[which]
    with pytest.raises(SystemExit) as end:
        cli.main([verb, model, *RUNNING[verb]])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert "its weights are missing" in said.err
    assert said.out == ""
    assert not (tmp_path / "y.npz").exists()


def test_a_folder_that_has_a_known_name_is_not_taken_for_it(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bare, tmp_path / "here" / "llama-3.1-8b")
    monkeypatch.chdir(tmp_path)
    made = unitp.plan(unitp.load(tmp_path / "here" / "llama-3.1-8b"), Mesh(tp=2), allow_unused=True)
    plan_file.save(made, "plan.json")
    cli.main(["show", "plan.json"])
    assert "(--model)" in capsys.readouterr().err


def test_plan_show_and_program_work_without_weights(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["plan", str(bare / "config.json"), "--mesh", "tp=2", "--allow-unused", "-o", "plan.json"])
    assert "written to plan.json" in capsys.readouterr().out
    cli.main(["show", "plan.json", "--model", str(bare)])
    assert "decode" in capsys.readouterr().out
    cli.main(["program", "plan.json", "--model", str(bare / "config.json"), "--rank", "1"])
    assert "MatMul" in capsys.readouterr().out
