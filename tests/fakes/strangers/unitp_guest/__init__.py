"""A stranger's plug-in that uses every hook but that of backends (`unitp_strange.skewed` is a backend).

It brings an operator, its decomposition, a front end that reads models of it, an export and a machine profile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitp.engine.overrides import Implementation
from unitp.engine.primitives import Primitives, Tensor
from unitp.frontends import FrontEnd, Model
from unitp.frontends.builder import Builder
from unitp.graph.ops import Operator, line_rule
from unitp.plans import PhasePlan, Plan
from unitp.plugins.hooks import hookimpl
from unitp.program.rank import Context
from unitp.report.export import Export, Format


@hookimpl
def unitp_operators() -> Sequence[Operator]:
    """`Blend(x, scale, shift)`: x times a scale for each column, plus a shift for each row."""
    return [Operator("Blend", line_rule("b s d, d, s -> b s d"), arity=(3, 3), flops=2)]


@hookimpl
def unitp_decompositions() -> Mapping[str, Implementation]:
    return {"Blend": _blend}


def _blend(p: Primitives, ctx: Context, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return p.add(p.mul(x, scale), p.reshape(shift, (*p.shape(shift), 1)))


@hookimpl
def unitp_front_ends() -> Sequence[FrontEnd]:
    return [FrontEnd("blend", ".blend files", lambda path: path.suffix == ".blend", _load)]


def _load(path: Path) -> Model:
    """A model whose file holds the sizes of its input: `2 6 8`."""
    batch, rows, columns = map(int, path.read_text().split())
    b = Builder("blend")
    x = b.input("x", "float32", (batch, rows, columns))
    y = b.Blend(x, b.random("scale", (columns,), seed=1), b.random("shift", (rows,), seed=2))
    return Model(path.name, b.graph(y))


@hookimpl
def unitp_exports() -> Sequence[Format]:
    return [Format("names", "the parameters of a plan, one to a line", _write)]


def _write(plan: Plan, graph: Any, phase: PhasePlan, python: bool = False) -> Export:
    return Export("\n".join(plan.parameters).encode(), (), ("layouts",))


@hookimpl
def unitp_machines() -> Mapping[str, Path]:
    return {"abacus": Path(__file__).parent / "abacus.toml"}
