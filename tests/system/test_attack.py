"""A small, seeded share of the attack command: what reads files, words or frames of strangers refuses them, or is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ATTACK = Path(__file__).parents[1] / "attack" / "attack.py"
READERS = 11
EACH = 20


@pytest.mark.system
@pytest.mark.timeout(180)
def test_hostile_inputs_are_refused_or_right() -> None:
    command = [sys.executable, str(ATTACK), "--seed", "7", "--count", str(READERS * EACH)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    rows = [line.rsplit(maxsplit=9) for line in done.stdout.splitlines()]
    found = {row[0]: [int(n) for n in row[1:6]] for row in rows if len(row) == 10 and row[1].isdigit()}
    assert len(found) == READERS
    assert all(row[0] == EACH for row in found.values())
    assert sum(right for _, _, right, _, _ in found.values()) > EACH, "what is in order is not refused"
