"""A list of steps over numbered slots, and how a rank carries it out: one closure per instruction, or per segment.

A step reads slots, calls a function, stores the results and empties the slots that nobody reads afterwards, so that peak
memory is what liveness allows. Before each step the watchdog is told where the rank is; what a step raises ends the rank.
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
    """Run all steps on `values`. Whatever one raises, the rank is out of step then: no InputError comes out, and what is
    no error of unitp becomes what `failed` makes of the step's number and the error.
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

    One output is returned as it is, several as a sequence; of no outputs the result is dropped. The common numbers of
    inputs have a closure each, since this is the decode loop's overhead.
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
