"""A plan in the formats of other tools. An export lists, tensor by tensor, what the format cannot express; nothing is lost silently.

    onnx-sharding   a ModelProto whose nodes carry ONNX's multi-device annotations      `onnx_sharding`
    dtensor         a placement for each parameter, for `torch.distributed.tensor`      `dtensor`
    tp-plan         the `tp_plan` of a transformers model: module patterns and styles   `tp_plan`

`Export.lost` names the tensors whose layout the format cannot express, and what was written instead: each rank then holds at least
the rows that the plan gives it. `Export.limits` says what the format cannot express for any plan.

Python files consist of literals (`unitp.texts.literal`), so that a name of a model or a tensor is never code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import msgspec

from unitp import plans
from unitp.errors import InputError, did_you_mean
from unitp.graph.graph import Graph
from unitp.plans import Plan
from unitp.plugins.hooks import Hook, hookimpl, hookspec


class Lost(msgspec.Struct, frozen=True):
    """A tensor (or module) whose layout the format cannot express; `why` also says what was written instead."""

    what: str
    why: str


class Export(msgspec.Struct, frozen=True):
    """The bytes of a file, and what they do not express: of this plan (`lost`), and of any plan (`limits`)."""

    data: bytes
    lost: tuple[Lost, ...]
    limits: tuple[str, ...]


class Group(msgspec.Struct, frozen=True):
    """Losses of one kind: a name with numbers replaced by `*`, and the number of tensors that it stands for."""

    what: str
    count: int
    why: str


class Format(msgspec.Struct, frozen=True):
    """A format: its name, what it is in words, and what writes it.

    write    `write(plan, graph, phase, python=False)` returns an `Export`. `phase` is the plan of the phase whose activations are
             exported; `python` asks for Python instead of JSON, if the format has both
    """

    name: str
    about: str
    write: Callable[..., Export]


@hookspec
def unitp_exports() -> Sequence[Format]:
    """Return the formats in which this plug-in writes plans."""
    return ()


class BuiltIn:
    """The formats of this folder."""

    @hookimpl
    def unitp_exports(self) -> Sequence[Format]:
        """Return the formats that come with unitp. Their modules are imported when they are used."""
        return [
            Format("onnx-sharding", "ONNX's multi-device annotations", partial(_write, "onnx_sharding")),
            Format("dtensor", "placements for torch.distributed.tensor", partial(_write, "dtensor")),
            Format("tp-plan", "the tp_plan of a transformers model", partial(_write, "tp_plan")),
        ]


def _write(module: str, *given: Any, **options: Any) -> Export:
    made: Export = import_module(f"unitp.report.export.{module}").write(*given, **options)
    return made


EXPORTS: Hook[Format] = Hook("export", unitp_exports, Format, [BuiltIn()])


def require_format(name: str) -> Format:
    """Return the format of this name. Raises InputError if there is none."""
    found = EXPORTS.find(name)
    if found is None:
        raise InputError(f'unknown export format "{name}"', hint=did_you_mean(name, EXPORTS.all()))
    return found


def export(plan: Plan, graph: Graph, to: str, *, phase: str = "", suffix: str = "") -> Export:
    """Return a plan of `graph` in the format `to`.

    phase    the phase whose activations are exported (default: the last)
    suffix   ".py" for Python instead of JSON, if the format has both

    Raises InputError for an unknown format or a missing package, and PlanError if the plan is not for this graph, has no such
    phase, or the format cannot hold this kind of model.
    """
    form = require_format(to)
    plans.require(plan, graph)
    chosen = plan.phase(phase or plan.phases[-1].phase.name)
    return form.write(plan, graph, chosen, python=suffix == ".py")


def grouped(lost: Iterable[Lost]) -> list[Group]:
    """Return losses grouped by pattern and reason, in order of appearance."""
    found = Counter((re.sub(r"\d+", "*", one.what), one.why) for one in lost)
    return [Group(what, count, why) for (what, why), count in found.items()]
