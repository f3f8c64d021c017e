"""A plan in the words of other tools. Every format says what it cannot express, tensor by tensor; nothing is lost silently.

    onnx-sharding   a ModelProto whose nodes carry ONNX's multi-device annotations      `onnx_sharding`
    dtensor         a placement for each parameter, for `torch.distributed.tensor`      `dtensor`
    tp-plan         the `tp_plan` of a transformers model: module patterns and styles   `tp_plan`

`Export.lost` names tensors whose layout the format cannot say, and what was written instead: always something that holds
at least the rows that the plan wants. `Export.limits` is what the format has no word for, whatever the plan.

Python that is written is made of literals (`unitp.texts.literal`): a name of a model or a tensor is never code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from importlib import import_module

import msgspec

from unitp import plans
from unitp.errors import InputError, did_you_mean
from unitp.graph.graph import Graph
from unitp.plans import Plan

FORMATS = {"onnx-sharding": "onnx_sharding", "dtensor": "dtensor", "tp-plan": "tp_plan"}
"""Formats, and the module that writes each."""


class Lost(msgspec.Struct, frozen=True):
    """A tensor (or module) whose part in the plan the format cannot say, why, and what it says instead."""

    what: str
    why: str


class Export(msgspec.Struct, frozen=True):
    data: bytes
    lost: tuple[Lost, ...]
    limits: tuple[str, ...]


class Group(msgspec.Struct, frozen=True):
    """Losses of one kind: a name with numbers replaced by *, and how many tensors it stands for."""

    what: str
    count: int
    why: str


def require_format(name: str) -> None:
    if name not in FORMATS:
        raise InputError(f'unknown export format "{name}"', hint=did_you_mean(name, FORMATS))


def export(plan: Plan, graph: Graph, to: str, *, phase: str = "", suffix: str = "") -> Export:
    """The plan of `graph` as format `to`. `phase`: whose activations are told (default: the last).

    `suffix` `.py` asks for Python instead of JSON, where a format has both. Raises InputError for an unknown format, and
    PlanError where the plan is not of this graph or the format cannot hold this kind of model at all.
    """
    require_format(to)
    plans.require(plan, graph)
    chosen = plan.phase(phase or plan.phases[-1].phase.name)
    writer = import_module(f"unitp.report.export.{FORMATS[to]}")
    made: Export = writer.write(plan, graph, chosen, python=suffix == ".py")
    return made


def grouped(lost: Iterable[Lost]) -> list[Group]:
    """Losses by pattern and reason, in order of appearance."""
    found = Counter((re.sub(r"\d+", "*", one.what), one.why) for one in lost)
    return [Group(what, count, why) for (what, why), count in found.items()]
