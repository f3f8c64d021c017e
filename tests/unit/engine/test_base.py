"""An engine's class is abstract or final: nothing overrides what runs, and no backend reaches into what is private."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterator
from inspect import isfunction
from pathlib import Path
from typing import final

import pytest

from unitp.engine.base import BaseEngine, CompiledProgram
from unitp.engine.eager import EagerEngine
from unitp.engine.engine import Engine
from unitp.engine.states import Storage

ROOT = Path(__file__).parents[3]
BACKENDS = sorted((ROOT / "backends").glob("*/unitp_*/*.py"))
ENGINE = sorted((ROOT / "unitp" / "engine").rglob("*.py"))
OF_FRAMEWORKS = {"_sync_copyfrom", "_LIB"}
"""What MXNet has no public name for: the copy from NumPy into an array that is there, and its C library."""


def methods(node: ast.ClassDef) -> dict[str, set[str]]:
    """The methods of a class with their decorators, but for the constructor."""
    found = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name != "__init__"]
    return {n.name: {ast.unparse(d).split(".")[-1] for d in n.decorator_list} for n in found}


Modules = dict[str, ast.Module]


def modules() -> Modules:
    """The engine and all backends, by the names that they are imported by."""
    names = {path: path.relative_to(ROOT).with_suffix("").parts for path in ENGINE}
    names |= {path: path.with_suffix("").parts[-2:] for path in BACKENDS}
    return {".".join(parts).removesuffix(".__init__"): ast.parse(path.read_text()) for path, parts in names.items()}


def classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def imported(tree: ast.Module) -> dict[str, str]:
    """What the names that a module imports from others stand for."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in found for alias in node.names}
    for alias in (alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names):
        whole = alias.asname or alias.name.split(".")[0]
        names[whole] = alias.name if alias.asname else whole
    return names


def ancestors(at: str, node: ast.ClassDef, known: Modules) -> Iterator[ast.ClassDef]:
    """The classes of these modules that a class is made from."""
    for base in node.bases:
        first, *rest = ast.unparse(base).split("[")[0].split(".")
        module, _, name = ".".join([imported(known[at]).get(first, f"{at}.{first}"), *rest]).rpartition(".")
        found = classes(known[module]).get(name) if module in known else None
        if found is not None:
            yield found
            yield from ancestors(module, found, known)


def overrides(known: Modules) -> list[str]:
    """Methods that a class defines though one that it is made from has them, and they are not abstract there; and classes
    made from a final one.
    """
    found = set()
    for module, tree in known.items():
        for node in classes(tree).values():
            for base in ancestors(module, node, known):
                if "final" in {ast.unparse(d) for d in base.decorator_list}:
                    found.add(f"{node.name} is made from {base.name}, which is final")
                if "Protocol" in {ast.unparse(b).split("[")[0] for b in base.bases}:
                    continue
                concrete = {name for name, marks in methods(base).items() if "abstractmethod" not in marks}
                found |= {
                    f"{node.name}.{name} overrides that of {base.name}" for name in concrete & methods(node).keys()
                }
    return sorted(found)


def private(tree: ast.Module) -> list[str]:
    """Uses of names with a leading underscore that belong to another object, to a class of another module, or to unitp."""
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_private(n.attr)]
    others = [n for n in uses if ast.unparse(n.value) != "self" and n.attr not in OF_FRAMEWORKS]
    found = [f"line {n.lineno}: {ast.unparse(n)}" for n in others]
    found += [
        f"{local} is {name}" for local, name in imported(tree).items() if name.startswith("unitp.") and "._" in name
    ]
    for node in classes(tree).values():
        family = [node, *ancestors("", node, {"": tree})]
        own = {name for kin in family for name in {*methods(kin), *assigned(kin)}}
        inside = set(ast.walk(node))
        foreign = [n for n in uses if n in inside and ast.unparse(n.value) == "self" and n.attr not in own]
        found += [f"line {n.lineno}: {ast.unparse(n)}, which {node.name} does not define" for n in foreign]
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def assigned(node: ast.ClassDef) -> set[str]:
    """The attributes of self that the class's constructor assigns."""
    makers = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    stored = [n for maker in makers for n in ast.walk(maker) if isinstance(n, ast.Attribute)]
    return {n.attr for n in stored if isinstance(n.ctx, ast.Store) and ast.unparse(n.value) == "self"}


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_backends_touch_nothing_private(path: Path) -> None:
    assert private(ast.parse(path.read_text())) == []


def test_no_class_overrides_what_is_not_abstract() -> None:
    known = modules()
    engine = classes(known["unitp_mxnet.executor"])["MxnetEngine"]
    assert [base.name for base in ancestors("unitp_mxnet.executor", engine, known)] == ["BaseEngine"]
    assert overrides(known) == []


@pytest.mark.parametrize("contract", [BaseEngine, CompiledProgram, Storage], ids=lambda c: c.__name__)
def test_every_method_of_the_contract_is_abstract_or_final(contract: type) -> None:
    own = {name: method for name, method in vars(contract).items() if isfunction(method) and name != "__init__"}
    abstract = {name for name, method in own.items() if getattr(method, "__isabstractmethod__", False)}
    finals = {name for name, method in own.items() if getattr(method, "__final__", False)}
    assert abstract
    assert abstract | finals == own.keys()
    assert not abstract & finals


def test_what_a_worker_asks_of_an_engine_is_in_the_contract() -> None:
    asked = {name for name, method in vars(Engine).items() if isfunction(method) and not name.startswith("_")}
    assert {"run", "compile", "forget", "stats"} <= asked <= vars(BaseEngine).keys()


def test_an_engine_that_lacks_a_part_is_not_made() -> None:
    class Half(BaseEngine):
        def stats(self):
            raise NotImplementedError

    with pytest.raises(TypeError, match="abstract method prepare"):
        Half()  # type: ignore[abstract, call-arg]
    assert EagerEngine.__final__  # type: ignore[attr-defined]


# the checks themselves


class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...
    @final
    def doubled(self) -> float:
        return 2 * self.area()

    def name(self) -> str:
        return "shape"


FROM = "from shapes import Shape\n"
CASES = {
    "final": (FROM + "class Square(Shape):\n def doubled(self): ...", "Square.doubled overrides that of Shape"),
    "concrete": (FROM + "class Square(Shape):\n def name(self): ...", "Square.name overrides that of Shape"),
    "async": (FROM + "class Square(Shape):\n async def name(self): ...", "Square.name overrides that of Shape"),
    "through a module": (
        "from here import shapes\nclass Square(shapes.Shape):\n def name(self): ...",
        "Square.name overrides that of Shape",
    ),
    "by its whole name": (
        "import here.shapes\nclass Square(here.shapes.Shape):\n def name(self): ...",
        "Square.name overrides that of Shape",
    ),
    "by another name": (
        "from shapes import Shape as Form\nclass Square(Form):\n def name(self): ...",
        "Square.name overrides that of Shape",
    ),
    "grandchild": (
        FROM + "class Round(Shape): ...\nclass Disc(Round):\n def name(self): ...",
        "Disc.name overrides that of Shape",
    ),
    "final class": (
        FROM + "@final\nclass Square(Shape): ...\nclass Tile(Square): ...",
        "Tile is made from Square, which is final",
    ),
}


@pytest.mark.parametrize(("text", "message"), CASES.values(), ids=CASES.keys())
def test_overrides_are_found(text: str, message: str) -> None:
    contract = ast.parse(Path(__file__).read_text())
    known = {"shapes": contract, "here.shapes": contract}
    assert overrides(known | {"mine": ast.parse(text)}) == [message]
    assert overrides(known | {"mine": ast.parse(FROM + "class Square(Shape):\n def area(self): ...")}) == []
    assert overrides(known | {"mine": ast.parse("class Shape: ...\nclass Square(Shape):\n def name(self): ...")}) == []


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("self._own = 1", 0),
        ("self._own = 1; return self._own + self._helper()", 0),
        ("return other._x", 1),
        ("return super()._x()", 1),
        ("return self.engine._x", 1),
        ("return self._inherited", 1),
        ("return self.__class__.__name__", 0),
    ],
)
def test_private_attributes_are_found(body: str, count: int) -> None:
    text = f"class A(B):\n def __init__(self, other):\n  {body}\n def _helper(self): ..."
    assert len(private(ast.parse(text))) == count


def test_private_names_of_unitp_are_not_imported() -> None:
    assert private(ast.parse("from unitp.engine.interpreter import Runner, _text")) == [
        "_text is unitp.engine.interpreter._text"
    ]
    assert private(ast.parse("from mxnet._ctypes.ndarray import _imperative_invoke")) == []
