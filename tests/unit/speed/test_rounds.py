"""The order of turns, which rounds count, and what becomes of a subject that fails."""

from __future__ import annotations

from collections.abc import Mapping

from speed.figures import Key
from speed.peers import PeerError
from speed.rounds import Turn, run
from speed.subjects import Subject

A, B, C = (Subject(name) for name in "abc")


class Log:
    """Turns that note when they are taken, and find how often that was."""

    def __init__(self, *failing: int) -> None:
        self.taken: list[str] = []
        self.failing = failing
        self.told: list[tuple[int, str]] = []

    def turn(self, subject: Subject) -> Turn:
        def take() -> dict[Key, float]:
            self.taken.append(subject.maker)
            times = self.taken.count(subject.maker)
            if subject == B and times in self.failing:
                raise PeerError("it ended")
            return {Key("decode", subject): float(times)}

        return Turn("decode", subject, take)

    def tell(self, number: int, turn: Turn, found: Mapping[Key, float]) -> None:
        self.told.append((number, turn.subject.maker))


def test_every_second_round_is_taken_backwards():
    log = Log()
    run([log.turn(s) for s in (A, B, C)], 3, log.tell)
    assert "".join(log.taken) == "abccbaabccba"


def test_the_first_round_does_not_count():
    log = Log()
    figures, failed = run([log.turn(A)], 2, log.tell)
    assert figures[Key("decode", A)] == [2.0, 3.0]
    assert failed == {}
    assert log.told == [(0, "a"), (1, "a"), (2, "a")]


def test_a_subject_that_fails_is_left_out_with_the_reason_and_the_others_go_on():
    log = Log(2)
    figures, failed = run([log.turn(s) for s in (A, B)], 3, log.tell)
    assert failed == {B: "decode: it ended"}
    assert figures[Key("decode", A)] == [2.0, 3.0, 4.0]
    assert figures[Key("decode", B)] == []
    assert log.taken.count("b") == 2
