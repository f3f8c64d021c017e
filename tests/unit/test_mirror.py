"""The folders of these tests are the rooms of the package: whoever knows a module knows where its tests are."""

from __future__ import annotations

from pathlib import Path

import pytest

UNIT = Path(__file__).parent
ROOT = UNIT.parents[1]
ROOMS = [ROOT / "unitp", *ROOT.glob("backends/*/unitp_*")]
OF_ALL = {"docstrings", "documented", "growth", "house", "licences", "mirror", "mixture"}
TESTS = sorted(UNIT.rglob("test_*.py"))


def modules(room: str) -> set[str]:
    """The modules of a room, and its own name for what speaks of the room as a whole; of no room: those beside the rooms."""
    if not room:
        return {path.stem for path in (ROOT / "unitp").glob("*.py")}
    homes = [
        home
        for home in ((ROOT / "unitp" / room), *ROOT.glob(f"backends/*/{room}"), ROOT / "tests/bench" / room)
        if home.is_dir()
    ]
    files = [path for home in homes for path in home.rglob("*.py")]
    return {path.stem for path in files} | {path.parent.name for path in files}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(UNIT)))
def test_a_file_of_tests_lies_in_the_room_of_its_module(path: Path) -> None:
    room, name = str(path.parent.relative_to(UNIT)).strip("."), path.stem.removeprefix("test_")
    if not room and name in OF_ALL:
        return
    assert any(name == module or name.startswith(f"{module}_") for module in modules(room)), (
        f"{path.relative_to(ROOT)} has the name of no module of {room or 'the package'}: "
        "name it for the module that it tests, test_<module>.py or test_<module>_<aspect>.py"
    )
