"""Calibrating, predicting and tracing on real ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unitp.calibration import calibrate
from unitp.cost.link import KINDS
from unitp.cost.machine_file import load_machine, parse_machine

pytestmark = [pytest.mark.system, pytest.mark.timeout(110)]


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unitp", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=100)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def machine(zoo_of_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine file, measured quickly."""
    file = tmp_path_factory.mktemp("machines") / "numpy.toml"
    said = run("calibrate", "--backend", "numpy", "--ranks", 2, "--quick", "-o", file)
    assert "GFLOP/s" in said.stdout
    assert f"written to {file}" in said.stdout
    assert "0% numpy, 1 rank: starting" in said.stderr
    assert "numpy, 2 ranks: " in said.stderr
    assert zoo_of_module.left() == []
    return file


def test_a_calibrated_file_is_a_machine_and_says_how_it_was_measured(machine: Path) -> None:
    found = load_machine(machine)
    device = found.devices["cpu"]
    assert set(device.busy) == {2}
    assert set(found.link_kinds) == set(KINDS)
    for known in (device, device.busy[2]):
        assert 1e8 < known.matmul["float32"][0][1] < known.matmul["float32"][-1][1] < 1e13
        assert 0 < known.program_s < 1
        assert {"MatMul", "Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter"} <= set(known.operators)
    text = machine.read_text()
    assert text.startswith("# unitp calibrate --backend numpy --ranks 2 --transport mpi --quick")
    assert found.name == "numpy over MPI on this host"
    assert "chain of products" in text
    assert parse_machine(text, name=machine.stem) == found


def test_one_rank_has_no_collectives(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    found = calibrate("numpy", 1, quick=True, tell=lambda what, part: told.append((what, part)))
    assert parse_machine(found.text) == found.machine
    assert found.machine.link_kinds == {}
    assert found.machine.devices["cpu"].busy == {}
    parts = [part for _, part in told]
    assert parts == sorted(parts)
    assert 0 <= parts[0] < 0.1 < 0.8 < parts[-1] <= 1


def bench(folder: str, machine: Path, *more: object) -> dict[str, Any]:
    arguments = ["bench", folder, "--machine", machine, "--prompt-tokens", 20, "--new-tokens", 4, "--json", *more]
    found = json.loads(run(*arguments).stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("mesh", ["tp=1", "tp=2"])
def test_bench_tells_predicted_and_measured_time_by_class(folder: str, machine: Path, mesh: str) -> None:
    found = bench(folder, machine, "--mesh", mesh)
    phases = {phase["phase"]: phase for phase in found["phases"]}
    assert set(phases) == {"prefill", "decode"}
    assert (phases["prefill"]["sizes"]["seq"], phases["decode"]["sizes"]["seq"]) == (32, 1)
    for phase in phases.values():
        assert phase["basis"] == "instructions"
        assert phase["error"] == pytest.approx(phase["predicted_s"] / phase["measured_s"] - 1)
        lines = {line["name"]: line for line in phase["lines"]}
        assert {"matmul", "attention", "norm", "elementwise", "data movement", "call"} <= set(lines)
        assert sum(line["predicted_s"] for line in lines.values()) == pytest.approx(phase["predicted_s"])
        assert all(line["measured_s"] > 0 for line in lines.values())


def test_bench_prints_a_table_for_each_phase(folder: str, machine: Path) -> None:
    said = run("bench", folder, "--machine", machine, "--prompt-tokens", 20, "--new-tokens", 4).stdout
    assert "prefill (batch 1, seq 32, live 128): predicted " in said
    assert "decode (batch 1, seq 1, live 128): predicted " in said
    assert "classes by instructions" in said


@pytest.mark.parametrize("backend, mesh", [("numpy", "tp=2"), ("mxnet", "tp=1"), ("tensorflow", "tp=1")])
def test_a_trace_shows_every_rank_and_the_prediction(
    folder: str, machine: Path, tmp_path: Path, backend: str, mesh: str
) -> None:
    file = tmp_path / "trace.json"
    arguments = ["--backend", backend, "--mesh", mesh, "--prompt-tokens", 20, "--new-tokens", 3, "--machine", machine]
    said = run("trace", folder, "-o", file, *arguments)
    where = "one process" if mesh == "tp=1" else "mpi"
    assert f"3 calls of tiny on {mesh}, {backend}, {where}, written to {file}" in said.stdout
    events = [e for e in json.loads(file.read_text())["traceEvents"] if e["ph"] == "X"]
    ranks, (device,) = int(mesh.partition("=")[2]), load_machine(machine).devices.values()
    for rank in range(ranks):
        for tid in (1, 2):
            own = [e for e in events if (e["pid"], e["tid"]) == (rank, tid)]
            calls = [e for e in own if e["cat"] == "call"]
            assert len(calls) == 3
            shares, begun = (
                [],
                device.program_s * 1e6 if tid == 2 else 0.0,
            )  # a prediction knows what starting a program takes
            for outer in calls:
                end = outer["ts"] + outer["dur"] + 0.01
                inner = [e for e in own if e is not outer and outer["ts"] <= e["ts"] and e["ts"] + e["dur"] <= end]
                assert inner
                shares.append((begun + sum(e["dur"] for e in inner)) / outer["dur"])
            assert max(shares) <= 1.01
            assert max(shares) > 0.6, "instructions fill a call that was not disturbed"
    driver = [e for e in events if e["pid"] == ranks]
    assert [e["name"].partition(" ")[0] for e in driver] == ["prefill", "decode", "decode"]
