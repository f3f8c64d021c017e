"""Peers and limits are processes that answer line by line; one that ends says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from speed.peers import Lines, PeerError, groups

ROOT = Path(__file__).parents[3]


@pytest.mark.system
def test_a_process_answers_each_line():
    process = Lines("speed.serve_limit", "8,4,1", "0", "1", env={})
    try:
        assert "dot" in process.answer()
        process.ask({"way": "dot", "passes": 2, "start": 0.0})
        begun, ended = process.answer()
        assert begun <= ended
    finally:
        process.close()


@pytest.mark.system
def test_a_process_that_ends_says_why():
    process = Lines("speed.serve_transformers", "/nowhere", "many", env={})
    with pytest.raises(PeerError, match="exit code 1: ValueError: invalid literal"):
        process.answer()
    process.close()


def test_processes_of_a_group_meet_at_one_port():
    assert groups(1) == [{}]
    first, second = groups(2)
    assert (first["RANK"], second["RANK"]) == ("0", "1")
    assert first["MASTER_PORT"] == second["MASTER_PORT"]
    assert first["WORLD_SIZE"] == "2"


@pytest.mark.system
def test_the_commands_say_how_they_are_used():
    done = subprocess.run(
        [sys.executable, "-m", "speed", "--help"],
        env={"PYTHONPATH": str(ROOT / "tests/bench"), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--rounds" in done.stdout
    assert "--only" in done.stdout


def test_what_the_peers_need_is_pinned_as_everything_else():
    """transformers is in both files; accelerate and xllamacpp need nothing that the environment does not have."""
    lines = [
        line.split()[0] for line in (ROOT / "requirements-bench.txt").read_text("utf-8").splitlines() if line[:1] != "#"
    ]
    pinned = dict(line.split("==") for line in lines)
    constraints = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line
    )
    assert {"accelerate", "transformers", "xllamacpp"} == {*pinned}
    assert pinned["transformers"] == constraints["transformers"]
    assert {"psutil", "PyYAML", "safetensors", "huggingface_hub", "torch"} <= {*constraints}
