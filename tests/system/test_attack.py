"""A few of the hostile inputs of `make attack`: some for each reader."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
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
import ctypes, random, time
from unitp.errors import InputError

NAME = "misbehaving"
SEEDS = random.Random("misbehaving 1")
WHAT = "right", "refused", "taken", "raises", "wrong", "dies", "hangs", "memory", "no memory", "long", "odd", "leaves", "right", "harmless"
CALLED = {random.Random(SEEDS.getrandbits(64)).random(): what for what in WHAT}

class Input(str):
    harmless = property(lambda self: self == "harmless")

def one(rng, folder):
    return Input(CALLED[rng.random()])

def feed(given):
    if given in ("refused", "harmless"):
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
"""A reader, and what it does with the inputs of seed 1, which are called so."""


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
        "harmless",
    ]
    for name, outcome in zip(names, runner.attack("misbehaving", 1, range(14)), strict=True):
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
        "harmless": "it is harmless, and was refused: 'no'",
    }.items():
        assert words in found[name][1], (name, found[name])


SHOWN = """
import importlib, re, sys, time
from hashlib import sha256
from pathlib import Path

late = 10_000_000 * int(sys.argv[1])
now = time.time
time.time = lambda: now() + late

import attack

folder = Path(sys.argv[2])
for module in attack.READERS.values():
    reader = importlib.import_module(module)
    for seed, numbers in (5, range(8)), (5, range(5, 8)), (6, range(8)):
        made = [re.sub("0x[0-9a-f]+", "", repr(given)) for given in attack.inputs(reader, seed, numbers, folder)]
        print(*(sha256(given.encode()).hexdigest() for given in made), sep=",", end=" ")
    print()
"""
"""What the inputs of all readers are; in a process of its own, some months from now."""


def test_an_input_is_known_by_its_seed_and_number(tmp_path: Path) -> None:
    """In any process, on any day, and where those before it were not made: one that has failed can be tried alone."""

    def shown(late: int) -> str:
        environment = os.environ | {"PYTHONPATH": str(ATTACK.parent), "PYTHONHASHSEED": str(late)}
        command = [sys.executable, "-c", SHOWN, str(late), str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    found = shown(1)
    assert shown(2).splitlines() == found.splitlines()
    rows = [[made.split(",") for made in line.split()] for line in found.splitlines()]
    assert len(rows) == READERS
    for first, alone, other in rows:
        assert len(first) == len(other) == 8
        assert alone == first[5:]
        assert other != first


class Counted:
    """A reader that counts the inputs it makes."""

    NAME = "counted"
    made = 0

    def one(self, rng: random.Random, folder: Path) -> float:
        self.made += 1
        return rng.random()


def test_inputs_before_the_first_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be made again after every failure, and some take long to make."""
    monkeypatch.syspath_prepend(ATTACK.parent)
    runner, reader = importlib.import_module("attack"), Counted()
    assert len(list(runner.inputs(reader, 7, range(19_998, 20_000), tmp_path))) == 2
    assert reader.made == 2
