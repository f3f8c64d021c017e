"""A plan in which every name is one that some medium would obey (`hostile.EVERYTHING`), and the same plan with harmless names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
from hostile import tagged

from unitp import texts
from unitp.certificate import CertifiedPlan, Unused
from unitp.cost.machine_file import parse_machine as read_machine
from unitp.frontends.builder import Builder
from unitp.graph.graph import Graph
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Phase

WHAT = ("model", "input", "weight", "bias", "hidden", "result", "symbol", "phase", "slow", "fast", "machine")


def machine_text(name: str, slow: str, fast: str) -> str:
    """A machine file of two unlike devices."""
    return f"""
        name = {texts.toml_text(name)}
        ranks = [{texts.toml_text(slow)}, {texts.toml_text(fast)}]
        [devices.{texts.toml_text(slow)}]
        flops_per_s = {{ float32 = 1e6 }}
        memory_bytes_per_s = 1e6
        operator_s = 0.0
        [devices.{texts.toml_text(fast)}]
        flops_per_s = {{ float32 = 3e6 }}
        memory_bytes_per_s = 3e6
        operator_s = 0.0
        [link]
        latency_s = 1e-9
        bytes_per_s = 1e12
        call_s = 1e-9
    """


@cache
def built(hostile: bool) -> tuple[Graph, CertifiedPlan]:
    """A small graph with a plan for two unlike devices; every name is hostile, or none."""
    n = {what: tagged(what) if hostile else f"plain {what}" for what in WHAT}
    b = Builder(n["model"])
    x = b.input(n["input"], "float32", (n["symbol"], 64))
    h = b.op("MatMul", x, b.random(n["weight"], (64, 256), seed=1), name=n["hidden"])
    r = b.op("Add", h, b.random(n["bias"], (256,), seed=2))
    graph = b.graph(b.op("MatMul", b.Relu(r), b.random(f"{n['weight']} down", (256, 64), seed=3), name=n["result"]))
    machine = read_machine(machine_text(n["machine"], n["slow"], n["fast"]))
    phases = [Phase(n["phase"], {n["symbol"]: 8}, 2.0), Phase(f"{n['phase']} again", {n["symbol"]: 1})]
    made = plan(Request(graph, Mesh(tp=2), phases, machine=machine, model=n["model"]))
    certificate = msgspec.structs.replace(
        made.certificate,
        solver=n["model"] if hostile else made.certificate.solver,
        unused=(Unused("tp", (n["phase"],), 1.0, {n["phase"]: 1.0}),),
    )
    return graph, msgspec.structs.replace(made, certificate=certificate)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value
