"""Exported plans on real ranks of torch: DTensor and transformers hold the rows that the plan gives them, and compute the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

import unitp
from unitp.layout import Layout, Split, cuts
from unitp.mesh import Mesh
from unitp.plans import Plan
from unitp.report.export import export
from unitp.testing.models import EVEN, write_huggingface

pytest.importorskip("torch")

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
ODD = msgspec.structs.replace(EVEN, hidden=98, vocab=131, epsilon=1e-6)
SPLIT = {"attn_q": 0, "attn_k": 0, "attn_v": 0, "attn_output": 1, "ffn_gate": 0, "ffn_up": 0, "ffn_down": 1}
SPLIT |= {"token_embd": 0, "output": 0}
Array = npt.NDArray[Any]


def ranks_of(kind: str, count: int, *folders: Path) -> list[list[dict[str, Array]]]:
    """What each rank holds, folder by folder."""
    command = [sys.executable, str(Path(__file__).with_name("export_ranks.py")), kind, *map(str, folders)]
    shared = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(folders[0]),
        "WORLD_SIZE": str(count),
    }
    started = [
        subprocess.Popen(
            command,
            env={**shared, "RANK": str(r), "LOCAL_RANK": str(r)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for r in range(count)
    ]
    try:
        said = [process.communicate(timeout=160)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), b"\n".join(said)[-4000:].decode()
    return [[load(folder / f"rank{rank}.npz") for rank in range(count)] for folder in folders]


def load(path: Path) -> dict[str, Array]:
    with np.load(path) as held:
        return dict(held)


def by_rows_and_columns(model: unitp.Model, **axes: int) -> Plan:
    """Megatron's layouts, over the last axis."""
    made = unitp.plan(model, Mesh(**axes), allow_unused=True)
    *_, axis = axes
    parameters = {}
    for name, layout in made.parameters.items():
        shape = model.graph.parameter(name).type.shape
        dim = SPLIT.get(name.split(".")[-2]) if "." in name else None
        split = [None if d != dim else Split((axis,), cuts(axes[axis], int(n))) for d, n in enumerate(shape)]
        parameters[name] = Layout(tuple(split)) if dim is not None else Layout.replicated(len(layout.dims))
    return msgspec.structs.replace(made, parameters=parameters)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """The same model twice."""
    return [write_huggingface(tmp_path / name, ODD) for name in ("one", "two")]


def whole(folder: Path) -> dict[str, Array]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def parts(made: Plan, model: unitp.Model, rank: int) -> dict[str, tuple[slice, ...]]:
    """By Hugging Face's names, where a rank's part lies."""
    from unitp.report.export.names import names

    found = {}
    for name, own in names(model.graph).items():
        shape = tuple(int(n) for n in model.graph.parameter(name).type.shape)
        held = made.parameters[name].bind(shape, made.mesh).intervals(shape, rank, made.mesh)
        found[own] = tuple(slice(a, b) for a, b in held)
    return found


def written(folder: Path, made: Plan, model: unitp.Model, to: str) -> set[str]:
    """Export a plan into a folder; what the format cannot say."""
    told = export(made, model.graph, to, suffix=".py")
    (folder / "plan.py").write_bytes(told.data)
    return {one.what for one in told.lost}


def changed(made: Plan, **parameters: Layout) -> Plan:
    return msgspec.structs.replace(made, parameters=made.parameters | parameters)


@pytest.mark.parametrize(
    "axes",
    [pytest.param({"tp": 2}, id="tp=2"), pytest.param({"dp": 2, "tp": 2}, id="dp=2,tp=2", marks=pytest.mark.full)],
)
def test_dtensor_gives_each_rank_the_rows_of_the_plan(folders: list[Path], axes: dict[str, int]) -> None:
    """Also of 131 rows over 2, cut as torch.chunk cuts. Rows cut otherwise, or held twice, are held whole and are named."""
    model = unitp.load(folders[0])
    even = by_rows_and_columns(model, **axes)
    odd = changed(even, **{
        "blk.0.ffn_up.weight": Layout((Split(("tp",), ((0, 40), (40, 98))), None)),
        "blk.0.attn_k.weight": Layout((Split(("tp",), ((0, 24), (16, 32))), None)),
    })  # fmt: skip
    stored = whole(folders[0])
    lost = []
    for folder, made in zip(folders, (even, odd), strict=True):
        np.savez(folder / "arrays.npz", **stored)
        lost.append(written(folder, made, model, "dtensor"))
    assert lost == [set(), {"model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.k_proj.weight"}]
    for held, made, odds in zip(ranks_of("dtensor", even.mesh.size, *folders), (even, odd), lost, strict=True):
        for rank in range(made.mesh.size):
            ours = parts(made, model, rank)
            assert set(held[rank]) == set(ours) == set(stored)
            for name, part in ours.items():
                wanted = stored[name] if name in odds else stored[name][part]
                assert np.array_equal(held[rank][name], wanted), f"{name} on rank {rank}"


def test_transformers_holds_and_computes_what_the_plan_says(folders: list[Path]) -> None:
    """Also where one projection is whole: what the others make is then gathered."""
    pytest.importorskip("transformers")
    model = unitp.load(folders[0])
    even = by_rows_and_columns(model, tp=2)
    mixed = changed(even, **{f"blk.{i}.ffn_down.weight": Layout.replicated(2) for i in range(EVEN.layers)})
    ids = np.arange(1, 13)[None] * 7 % ODD.vocab
    lost = []
    for folder, made in zip(folders, (even, mixed), strict=True):
        np.savez(folder / "arrays.npz", input_ids=ids)
        lost.append(written(folder, made, model, "tp-plan"))
    assert [len(names) for names in lost] == [0, 2 * EVEN.layers]
    stored = whole(folders[0])
    for held, made in zip(ranks_of("tp-plan", 2, *folders), (even, mixed), strict=True):
        for rank in range(2):
            for name, part in parts(made, model, rank).items():
                assert np.array_equal(held[rank][name], stored[name][part]), f"{name} on rank {rank}"
            assert np.abs(held[rank]["logits"] - held[rank]["alone"]).max() < 1e-4
