"""A few of the hostile inputs of `make attack`: some for each reader."""

from __future__ import annotations

import importlib
import random
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

ATTACK = Path(__file__).parents[1] / "attack" / "attack.py"
READERS = 11
EACH = 8


@pytest.mark.system
@pytest.mark.timeout(300)
def test_hostile_inputs_are_refused_or_give_a_right_result() -> None:
    command = [sys.executable, str(ATTACK), "--seed", "11", "--count", str(READERS * EACH)]
    tried = subprocess.run(command, capture_output=True, text=True)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    rows = [line for line in tried.stdout.splitlines()[1:] if line]
    assert len(rows) == READERS, tried.stdout
    assert all(f"{EACH:9}" in row[14:23] for row in rows), tried.stdout


MISBEHAVING = """
import ctypes, os, time
from unitp.errors import InputError

NAME = "misbehaving"

def inputs(rng, folder):
    yield from ("right", "refused", "taken", "raises", "wrong", "dies", "hangs", "memory", "no memory", "long", "odd", "leaves", "right")

def feed(given):
    if given == "refused":
        raise InputError("no")
    if given in ("long", "odd"):
        raise InputError("x" * 100) if given == "long" else Odd()
    if given == "raises":
        return [][1]
    if given == "wrong":
        assert given == "right", "it is wrong"
    if given == "dies":
        ctypes.string_at(0)
    if given == "hangs":
        time.sleep(60)
    if given == "memory":
        len(b"x" * (150 << 20))
    if given == "no memory":
        bytes(1 << 45)
    if given == "leaves":
        raise SystemExit(0)
    return given == "right"

class Odd(InputError):
    def __init__(self):
        pass
    def __str__(self):
        return "\\x1b[31m"
"""
"""A reader, and what it does with inputs that are called so."""


def test_what_must_not_come_of_an_input_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With smaller bounds: of what comes of each of these inputs the runner tells, and goes on with the next."""
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    monkeypatch.syspath_prepend(ATTACK.parent)
    runner = importlib.import_module("attack")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runner, "SECONDS", 0.5)
    monkeypatch.setattr(runner, "MEMORY", 100 << 20)
    found = {}
    names = [
        "right",
        "refused",
        "taken",
        "raises",
        "wrong",
        "dies",
        "hangs",
        "memory",
        "no_memory",
        "long",
        "odd",
        "leaves",
        "right_again",
    ]
    for name, outcome in zip(names, runner.attack("misbehaving", 1, range(13)), strict=True):
        found[name] = (outcome.what, outcome.words)
    whats = {name: what for name, (what, _) in found.items()}
    assert whats == dict.fromkeys(names, "failed") | {
        "right": "right",
        "right_again": "right",
        "refused": "refused",
        "taken": "taken",
        "long": "refused",
    }
    for name, words in {
        "raises": "IndexError",
        "wrong": "it is wrong",
        "dies": "the process ended with -11",
        "hangs": "it took 1.0 s, 3 times",
        "memory": " MiB",
        "no_memory": "MemoryError",
        "odd": "an error of 5 characters",
        "leaves": "SystemExit",
    }.items():
        assert words in found[name][1], (name, found[name])


def test_an_input_is_known_by_its_seed_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ATTACK.parent)
    names = importlib.import_module("attack").READERS
    assert len(names) == READERS
    for module in names.values():
        reader = importlib.import_module(module)
        first, again, other = (
            re.sub("0x[0-9a-f]+", "", repr(list(islice(reader.inputs(random.Random(seed), tmp_path), 8)))) for seed in (5, 5, 6)
        )  # fmt: skip
        assert first == again
        assert first != other
