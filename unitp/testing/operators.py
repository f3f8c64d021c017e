"""Runs one operator on one rank of a backend, for the conformance tests of operators.

The operator goes the whole way (graph, plan, lowering, engine): on the backend's own engine, or on the eager one with the
backend's overrides or without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from unitp.engine.eager import EagerEngine
from unitp.engine.engine import Engine, Silent
from unitp.engine.overrides import Overrides
from unitp.engine.primitives import Primitives
from unitp.engine.transport import Alone
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.graph.values import Attribute
from unitp.mesh import Mesh
from unitp.plans import Phase, unsplit
from unitp.plugins.discover import backend, resolve
from unitp.program.lower import lower

Array = npt.NDArray[Any]


class Kit(msgspec.Struct, frozen=True):
    """What a backend gives on one rank."""

    primitives: Primitives
    overrides: Overrides


@lru_cache
def kit(name: str) -> Kit:
    """Return the primitives and overrides of an installed backend. This imports its framework."""
    package = backend(name).engine.partition(":")[0].rpartition(".")[0]
    primitives: Any = import_module(f"{package}.primitives")
    return Kit(primitives, import_module(f"{package}.overrides").overrides)


def graph_of(op: str, attrs: Mapping[str, Attribute], inputs: Sequence[Array | None]) -> Graph:
    """Return a graph of one operator whose inputs are graph inputs. Raises GraphError if its rule refuses the inputs."""
    b = Builder(op)
    names = []
    for number, array in enumerate(inputs):
        dtype = "float32" if array is not None and array.dtype.name == "float64" else str(getattr(array, "dtype", ""))
        names.append("" if array is None else b.input(f"x{number}", dtype, array.shape))
    plain: dict[str, Any] = dict(attrs)
    found = b.op(op, *names, **plain)
    return b.graph(*(found if isinstance(found, tuple) else (found,)))


@lru_cache
def engine(name: str) -> Engine:
    """Return a backend's own engine on one rank. This imports its framework."""
    connect = resolve(backend(name).engine)
    made: Engine = connect(0, Mesh(), Silent())
    return made


def eager(tools: Kit, *, overridden: bool = True) -> Engine:
    """Return the eager engine on a backend's primitives, with its overrides or with decompositions only."""
    return EagerEngine(tools.primitives, tools.overrides if overridden else Overrides(), Alone(), 0, Mesh())


def run_operator(
    op: str, attrs: Mapping[str, Attribute], inputs: Sequence[Array | None], on: Engine, name: str = "operator"
) -> list[Array]:
    """Run an operator and return its outputs, in the float64 mode if an input is float64. `name`: that of the program."""
    graph = graph_of(op, attrs, inputs)
    wide = any(array is not None and array.dtype == np.float64 for array in inputs)
    phase = Phase("main", {})
    program = lower(graph, unsplit(graph, [phase]), "main", dtype="float64" if wide else "float32")
    on.compile(name, program)
    found = on.run(name, {f"x{i}": array for i, array in enumerate(inputs) if array is not None})
    return [found[output] for output in program.outputs]
