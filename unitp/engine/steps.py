"""A list of steps over numbered slots, and how a rank carries it out: one closure per instruction, or per segment.

A step reads slots, calls a function, stores the results and empties slots after their last reader, so that peak memory is as low
as liveness allows. Before each step, the progress page gets the place of the rank; an error in a step ends the rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from unitp.engine.engine import Progress
from unitp.engine.primitives import Tensor
from unitp.errors import InputError, RankError, UnitpError, from_signal

Slots = list[Tensor]
Step = Callable[[Slots], None]
Steps = Sequence[tuple[int, Step]]
"""Steps with the numbers of their instructions (of a segment: its first one)."""


def carry_out(steps: Steps, values: Slots, progress: Progress, failed: Callable[[int, Exception], RankError]) -> None:
    """Run all steps on `values`. An error leaves the rank out of step with the others, so an InputError is never raised.

    Raises what `failed` makes of the step's number and an error that is an InputError or not one of unitp's.
    """
    at, number = progress.at, 0
    try:
        for number, step in steps:
            at(number)
            step(values)
    except Exception as error:
        if (isinstance(error, UnitpError) and not isinstance(error, InputError)) or from_signal(error):
            raise
        raise failed(number, error) from error


def step_of(fn: Callable[..., Any], inputs: Sequence[int], outputs: Sequence[int], dead: Sequence[int]) -> Step:
    """Return a step that gives `fn` the slots `inputs`, stores what it returns in `outputs` and empties `dead`.

    `fn` returns one output as it is, and several as a sequence; without outputs, its result is dropped. The most frequent numbers of
    inputs have a closure each, because this code runs for every instruction of a decode step.
    """
    if len(outputs) != 1:
        return _step_many(fn, inputs, outputs, dead)
    out = outputs[0]
    if len(inputs) == 1:
        (a,) = inputs

        def step(v: Slots) -> None:
            v[out] = fn(v[a])
            for slot in dead:
                v[slot] = None

    elif len(inputs) == 2:
        a, b = inputs

        def step(v: Slots) -> None:
            v[out] = fn(v[a], v[b])
            for slot in dead:
                v[slot] = None

    else:

        def step(v: Slots) -> None:
            v[out] = fn(*[v[slot] for slot in inputs])
            for slot in dead:
                v[slot] = None

    return step


def _step_many(fn: Callable[..., Any], inputs: Sequence[int], outputs: Sequence[int], dead: Sequence[int]) -> Step:
    def step(v: Slots) -> None:
        results = fn(*[v[slot] for slot in inputs])
        if outputs:
            for slot, result in zip(outputs, results, strict=True):
                v[slot] = result
        for slot in dead:
            v[slot] = None

    return step
