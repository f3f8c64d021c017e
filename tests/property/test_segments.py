"""Segments do what their program does, in an order in which nothing is read before it is made, or after it is let go."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitp.engine.engine import Silent
from unitp.engine.segments import Schedule, Segment, cut, levels, repeats, structure
from unitp.errors import InputError, PlanError, RankError

INPUTS = 3


class Call(NamedTuple):
    """Makes value `number`: a number that tells what it was made of."""

    number: int
    reads: tuple[int, ...]
    host: bool = False
    ordered: bool = False

    @property
    def writes(self) -> tuple[int, ...]:
        return (self.number,)


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Call], set[int]]:
    """Calls that read inputs, or what was made before, and the values that are wanted."""
    calls = []
    for number in range(INPUTS, INPUTS + draw(st.integers(1, 12))):
        reads = draw(st.lists(st.integers(0, number - 1), min_size=1, max_size=3))
        host = draw(st.booleans())
        calls.append(Call(number, tuple(reads), host, host and draw(st.booleans())))
    return calls, draw(st.sets(st.integers(0, INPUTS + len(calls) - 1), min_size=1))


def evaluated(call: Call, values: dict[int, object]) -> object:
    read = [values[number] for number in call.reads]
    assert None not in read, "a value is read that is not there"
    return (call.number, *read)


def whole(calls: list[Call], wanted: set[int]) -> dict[int, object]:
    values: dict[int, object] = {number: number for number in range(INPUTS)}
    for call in calls:
        values[call.number] = evaluated(call, values)
    return {number: values[number] for number in wanted}


def in_segments(segments: list[Segment[Call, int]], count: int, wanted: set[int]) -> tuple[dict[int, object], set[int]]:
    """What a schedule leaves of the wanted values, and all slots that it leaves filled."""
    schedule = Schedule(0, Silent())
    for segment in segments:

        def fn(*given: object, segment: Segment[Call, int] = segment) -> object:
            values = dict(zip(segment.inputs, given, strict=True))
            for call in segment.nodes:
                values[call.number] = evaluated(call, values)
            made = [values[number] for number in segment.outputs]
            return made[0] if len(made) == 1 else made

        numbers = [call.number for call in segment.nodes]
        schedule.add(numbers, fn, segment.inputs, segment.outputs, segment.dead)
    slots: list[object] = [number if number < INPUTS else None for number in range(count)]
    schedule.run(slots)
    return {n: slots[n] for n in wanted}, {n for n, value in enumerate(slots) if value is not None}


@given(recordings())
def test_a_recording_in_levels_does_what_it_did(recorded: tuple[list[Call], set[int]]) -> None:
    calls, wanted = recorded
    groups = levels(calls, wanted)
    for group in groups:
        assert len(group) == 1 or not any(call.host for call in group)
    run = list(chain.from_iterable(groups))
    assert [c for c in calls if c.ordered] == [c for c in run if c.ordered]
    assert {c for c in calls if c.host} <= set(run)
    found, left = in_segments(cut(groups, wanted, set()), INPUTS + len(calls), wanted)
    assert found == whole(calls, wanted)
    read = {number for call in run for number in call.reads}
    assert left == wanted | (set(range(INPUTS)) - read)


@given(recordings(), st.data())
def test_a_program_cut_anywhere_does_what_it_did(recorded: tuple[list[Call], set[int]], data: st.DataObject) -> None:
    calls, wanted = recorded
    bounds = sorted({0, len(calls), *data.draw(st.lists(st.integers(0, len(calls))))})
    segments = cut([calls[a:b] for a, b in pairwise(bounds)], wanted, {0})
    found, left = in_segments(segments, INPUTS + len(calls), wanted)
    assert found == whole(calls, wanted)
    assert 0 in left


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(2, 6))
def test_what_repeats_is_cut_where_that_saves_most(before: list[int], layer: list[int], times: int) -> None:
    keys = [*(k + 10 for k in before), *layer * times, 99]
    bounds = repeats(keys)
    assert bounds[0] == 0
    assert bounds[-1] == len(keys)
    assert bounds == sorted(set(bounds))
    distinct = {tuple(keys[a:b]) for a, b in pairwise(bounds)}
    saved = len(keys) - sum(map(len, distinct))
    assert saved >= (times - 1) * len(layer)


def test_a_list_that_does_not_repeat_is_one_group() -> None:
    assert repeats([1, 2, 3]) == [0, 3]
    assert repeats([]) == [0]
    assert repeats([7, 1, 2, 1, 2, 1, 2, 8]) == [0, 1, 3, 5, 7, 8]


def test_equal_structures_are_equal_apart_from_names() -> None:
    def form(*calls: Call, wanted: set[int]):
        (segment,) = cut([calls], wanted, set())
        return structure(segment, lambda number: "input", lambda call: call.host)

    first = form(Call(3, (0, 1)), Call(4, (3, 0)), wanted={4})
    assert first == form(Call(13, (7, 5)), Call(9, (13, 7)), wanted={9})
    assert first.steps == ((False, (0, 1)), (False, (2, 0)))
    assert first.outputs == (3,)
    others = [
        form(Call(3, (0, 1)), Call(4, (3, 1)), wanted={4}),  # reads another input
        form(Call(3, (0, 1)), Call(4, (3, 0)), wanted={3, 4}),  # more is read from it
        form(Call(3, (0, 1), host=True), Call(4, (3, 0)), wanted={4}),  # does something else
    ]
    assert len({first, *others}) == 4


@pytest.mark.parametrize("instructions", [[4], [4, 5, 9]])
def test_a_failing_segment_is_named_and_no_input_error_comes_out(instructions: list[int]) -> None:
    def fails(x: object) -> object:
        raise InputError("no such place")

    schedule = Schedule(2, Silent())
    schedule.add(instructions, fails, [0], [1], [])
    where = "instruction 4" if len(instructions) == 1 else "instructions 4 to 9"
    with pytest.raises(RankError, match=f"rank 2 failed in {where}: InputError: no such place"):
        schedule.run([1, None])


def test_an_error_of_unitp_is_no_failure_of_a_segment() -> None:
    def fails(x: object) -> object:
        raise PlanError("of its own")

    schedule = Schedule(0, Silent())
    schedule.add([0], fails, [0], [1], [])
    with pytest.raises(PlanError, match="of its own"):
        schedule.run([1, None])
