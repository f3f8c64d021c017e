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


def of_the_package() -> set[str]:
    """The functions, methods and classes of the package whose names begin with one underscore."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    names = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def used(tree: ast.Module, private: set[str]) -> set[str]:
    """The private names of the package that a test imports, calls or replaces; a class of the test may have its own."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.startswith("unitp"):
                found |= {alias.name for alias in node.names}
            case ast.Attribute(value=ast.Name(id="self")):
                pass
            case ast.Attribute(attr=name):
                found.add(name)
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[*_, ast.Constant(value=str(name)), _]):
                found.add(name.rpartition(".")[2])
    return (found & private) - own


def test_tests_stay_outside_of_what_is_private() -> None:
    private = of_the_package()
    root = PACKAGE.parent
    found = {
        str(path.relative_to(root)): used(ast.parse(path.read_text()), private) for path in root.glob("tests/**/*.py")
    }
    assert {name: names for name, names in found.items() if names} == {}
