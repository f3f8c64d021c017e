"""A user's exception that a signal handler raises inside unitp's code (a time limit) comes out as itself, wherever it strikes.

And nothing is left half made: the same calls give the same afterwards.
"""

from __future__ import annotations

import functools
import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from unitp.errors import from_signal
from unitp.frontends.chat import Message, chat_prompt
from unitp.frontends.model import Decoder, Model
from unitp.mesh import Mesh
from unitp.planner import Request, plan
from unitp.plans import Phase
from unitp.plugins import discover
from unitp.program.check import check
from unitp.program.instructions import Program
from unitp.program.lower import lower
from unitp.testing.models import EAGER_TO_SPLIT, tiny
from unitp.testing.operators import eager, kit
from unitp.testing.random_graphs import random_graph
from unitp.testing.simulate import simulate
from unitp.testing.unsharded import numbers


class TimeIsUpError(Exception):
    """The user's own."""


def stop(number: int, frame: object) -> None:
    raise TimeIsUpError


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeIsUpError when the time is up, and again until it gets through: destructors swallow what strikes in them."""
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6), 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


GRAPH, MESH = random_graph(3), Mesh(x=2)
ARRAYS = numbers(GRAPH, 3)
PLAN = plan(Request(GRAPH, MESH, [Phase("main", {})], machine=EAGER_TO_SPLIT))
PROGRAM = lower(GRAPH, PLAN, "main", dtype="float64")
CHATTY = Model(
    "chatty", tiny().graph, Decoder(64, 97, (), chat_template="{% for i in range(3000) %}{{ i }}{% endfor %}")
)


def planned() -> Program:
    found = plan(Request(GRAPH, MESH, [Phase("main", {})], machine=EAGER_TO_SPLIT))
    return lower(GRAPH, found, "main", dtype="float64")


def checked() -> None:
    for _ in range(4):
        check(PROGRAM, GRAPH)


def run() -> list[Any]:
    return [a.tolist() for a in simulate(PROGRAM, ARRAYS, ARRAYS, ARRAYS).outputs.values()]


def discovered() -> list[str]:
    discover.forget()
    return [*discover.backends()]


def chatted() -> str:
    return chat_prompt(CHATTY, [Message("user", "hello")])


CALLS: dict[str, Callable[[], object]] = {
    "plan and lower": planned,
    "check": checked,
    "run": run,
    "discover": discovered,
    "chat": chatted,
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", CALLS)
def test_a_time_limit_comes_out_as_itself(name: str) -> None:
    call = CALLS[name]
    wanted = call()
    begun = time.perf_counter()
    call()
    needed, rng = time.perf_counter() - begun, np.random.default_rng(len(name))
    stopped = 0
    for _ in range(25):
        try:
            with within(float(rng.uniform(0, needed))):
                assert call() == wanted  # it was the faster
        except TimeIsUpError:
            stopped += 1
    assert stopped > 0
    assert call() == wanted
    gc.collect()  # what is collected late, a file that was just being opened, is told of here


def test_in_a_kernel_of_an_engine_in_this_process() -> None:
    engine = eager(kit("numpy"))
    for parameter in GRAPH.parameters:
        engine.load(parameter.name, ARRAYS[parameter.name])
    alone = lower(GRAPH, plan(Request(GRAPH, Mesh(), [Phase("main", {})])), "main", dtype="float64")
    engine.compile("main", alone)

    def for_ever() -> None:
        while True:
            engine.run("main", {name: ARRAYS[name] for name in GRAPH.inputs})

    for seconds in np.linspace(0.001, 0.02, 10):
        with pytest.raises(TimeIsUpError), within(seconds):
            for_ever()


class Handler:
    def __call__(self, number: int, frame: object) -> None:
        raise TimeIsUpError

    def method(self, number: int, frame: object) -> None:
        self(number, frame)


HANDLERS = [stop, functools.partial(stop), Handler(), Handler().method, lambda number, frame: stop(number, frame)]


@pytest.mark.parametrize("handler", HANDLERS)
def test_any_kind_of_handler_is_known(handler: Any) -> None:
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(TimeIsUpError) as raised:
            signal.raise_signal(signal.SIGALRM)
        assert from_signal(raised.value)
        assert not from_signal(TimeIsUpError())
    finally:
        signal.signal(signal.SIGALRM, before)
