"""What keeps the house in order: facts about an operator stand in its record, and no two rooms have modules of one name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import grimp

from unitp.graph.ops import known_ops

PACKAGE = Path(__file__).parents[2] / "unitp"
OPERATORS_BY_NAME = ("graph", "frontends", "engine/operators", "testing")
"""Rooms that may name operators: they define them, write graphs of them, or try each."""
FAMILIES = ("cli", "graph/ops", "engine/operators")
"""Folders whose modules are named for verbs, or for families of operators: the same names in each."""
BY_DESIGN = {"analysis": {"graph", "program"}}
"""What follows from a graph, and what follows from a program."""


def room(path: Path) -> str:
    return path.parent.relative_to(PACKAGE).as_posix()


def within(path: Path, rooms: tuple[str, ...]) -> bool:
    return any(f"{room(path)}/".startswith(f"{name}/") for name in rooms)


def test_no_other_room_knows_operators_by_name() -> None:
    names, found = known_ops(), []
    for path in PACKAGE.rglob("*.py"):
        if not within(path, OPERATORS_BY_NAME):
            tree = ast.walk(ast.parse(path.read_text()))
            found += [f"{path}:{n.lineno}: {n.value}" for n in tree if isinstance(n, ast.Constant) and n.value in names]
    assert found == []


def test_no_two_modules_have_one_name() -> None:
    rooms: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py" and not within(path, FAMILIES):
            rooms[path.stem].add(room(path))
    assert {name: at for name, at in rooms.items() if len(at) > 1} == BY_DESIGN


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("unitp")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in sorted(graph.modules)}
    left = dict(imports)
    while free := [module for module, imported in left.items() if not imported & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}
