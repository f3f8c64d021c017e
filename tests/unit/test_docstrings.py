"""What docstrings promise: a public function names each error of unitp that its body raises, and a primitive its shapes.

Only a `raise` in the function itself counts, not what it calls. The docstring of a verb is its help text, which has no place for
errors.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import unitp.errors
from unitp.engine.primitives import Collectives, Primitives
from unitp.errors import UnitpError

ROOT = Path(__file__).parents[2]
ERRORS = {name for name, kind in vars(unitp.errors).items() if inspect.isclass(kind) and issubclass(kind, UnitpError)}
Function = ast.FunctionDef | ast.AsyncFunctionDef
SHAPES = re.compile(r"\b(shapes?|scalar|size|sizes|dims?)\b|\[[^\]]+\]")
"""Words by which the docstring of a primitive says what shape its operands and its result have."""


def modules() -> Iterator[Path]:
    """The public modules of unitp and of its backends."""
    for package in (ROOT / "unitp", *ROOT.glob("backends/*/unitp_*")):
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package).with_suffix("").parts
            if not any(part.startswith("_") and part != "__init__" for part in parts):
                yield path


def functions(body: list[ast.stmt]) -> Iterator[Function]:
    """The public functions of a module, and the public methods of its public classes."""
    for statement in body:
        if isinstance(statement, ast.ClassDef | Function) and not statement.name.startswith("_"):
            if isinstance(statement, ast.ClassDef):
                yield from functions(statement.body)
            elif not is_verb(statement):
                yield statement


def is_verb(function: Function) -> bool:
    """Whether click turns a function into a command, whose docstring is what `--help` prints."""
    calls = [decorator.func for decorator in function.decorator_list if isinstance(decorator, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr in ("command", "group") for call in calls)


def raised(function: Function) -> set[str]:
    """The errors of unitp that a function raises itself: not those of a function or class within it."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Lambda():
                continue
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))) if name in ERRORS:
                found.add(name)
        waiting += ast.iter_child_nodes(node)
    return found


def promised(docstring: str) -> set[str]:
    """The errors that a docstring names after the word "Raises" (or "Raise", where a function does nothing else)."""
    _, found, rest = docstring.partition("Raise")
    return set(re.findall(r"\w+", rest)) & ERRORS if found else set()


def test_a_docstring_names_every_error_that_its_function_raises() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{function.lineno}: {function.name} raises {', '.join(sorted(missing))}"
        for path in modules()
        for function in functions(ast.parse(path.read_text()).body)
        if (missing := raised(function) - promised(ast.get_docstring(function) or ""))
    ]
    assert silent == []


def test_the_search_sees_a_silent_function() -> None:
    """A function in a class without a word of its error, beside one that names it and one whose inner function raises."""
    source = '''
class Reader:
    def silent(self):
        """Return what is read."""
        with open("x"):
            raise errors.PlanError("no")

    def loud(self):
        """Return what is read. Raises PlanError if nothing is there."""
        raise PlanError("no")

    def outer(self):
        """Return a function."""
        def inner():
            raise PlanError("no")
        return inner
'''
    found = {f.name: raised(f) - promised(ast.get_docstring(f) or "") for f in functions(ast.parse(source).body)}
    assert found == {"silent": {"PlanError"}, "loud": set(), "outer": set()}


def test_every_primitive_and_collective_says_shapes() -> None:
    for protocol in (Primitives, Collectives):
        for name, method in inspect.getmembers(protocol, inspect.isfunction):
            if not name.startswith("_"):
                assert SHAPES.search(method.__doc__ or ""), f"{protocol.__name__}.{name} does not say shapes"
