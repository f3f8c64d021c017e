"""A small, seeded share of the hostile templates and settings of the attack command: refused, or right."""

from __future__ import annotations

import random
import sys
from importlib.util import module_from_spec, spec_from_file_location
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from unitp.errors import UnitpError

FOLDER = Path(__file__).parents[1] / "attack"
SHARE = {"templates": 30, "settings": 150}


def reader(name: str) -> Any:
    spec = spec_from_file_location(f"attack_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.system
@pytest.mark.parametrize("name", SHARE)
def test_hostile_inputs_are_refused_or_right(name: str, tmp_path: Path) -> None:
    module, found = reader(name), {"refused": 0, "right": 0, "accepted": 0}
    for given in islice(module.inputs(random.Random(7), tmp_path), SHARE[name]):
        try:
            found["right" if module.feed(given) else "accepted"] += 1
        except UnitpError:
            found["refused"] += 1
    assert found["refused"] >= SHARE[name] // 4
    assert found["right"] >= SHARE[name] // 8, "what is in order is not refused"


@pytest.mark.parametrize("name", SHARE)
def test_an_input_is_known_by_its_seed_and_number(name: str, tmp_path: Path) -> None:
    module = reader(name)
    first, again = (list(islice(module.inputs(random.Random(5), tmp_path), 50)) for _ in range(2))
    assert repr(first) == repr(again)
    assert repr(first) != repr(list(islice(module.inputs(random.Random(6), tmp_path), 50)))
