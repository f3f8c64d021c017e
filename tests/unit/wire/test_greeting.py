"""Who is let in: driver and worker that have the same key, and nobody who only heard others greet."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unitp.mesh import Mesh
from unitp.wire.channel import LARGEST, LARGEST_GREETING, Channel, WireError, for_driver, for_worker
from unitp.wire.greeting import BYTES, Guest, introduce, new_key, proof, read_key
from unitp.wire.messages import Challenge, Done, Hello, Proof, Start

KEY, OTHER = b"k" * BYTES, b"o" * BYTES
HELLO = Hello("worker", 3, 1, b"n" * BYTES)

Ends = tuple[Guest, Channel[Any]]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A guest of a driver that has KEY, and the other end."""
    near, far = socket.socketpair()
    guest, worker = Guest(for_driver(near), KEY), for_worker(far)
    yield guest, worker
    guest.channel.close()
    worker.close()


def hear(guest: Guest) -> Hello:
    """What comes of a greeting in the end."""
    while (hello := guest.listen()) is None:
        continue
    return hello


def said(call: Callable[[], object]) -> Iterator[WireError | None]:
    """Runs a call beside the test; then gives what it raised."""
    raised: list[WireError | None] = []

    def run() -> None:
        try:
            call()
        except WireError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield None
    thread.join(10)
    yield raised[0] if raised else None


def test_both_know_each_other(ends: Ends) -> None:
    guest, worker = ends
    other = said(lambda: introduce(worker, KEY, "worker", 3))
    next(other)
    hello = hear(guest)
    assert next(other) is None
    assert (hello.role, hello.number, hello.pid) == ("worker", 3, os.getpid())
    assert guest.channel.limit == LARGEST


def test_a_worker_with_another_key_finds_that_this_is_not_its_driver(ends: Ends) -> None:
    guest, worker = ends
    other = said(lambda: introduce(worker, OTHER, "worker", 3))
    next(other)
    assert guest.listen() is None
    error = next(other)
    assert isinstance(error, WireError)
    assert "the driver at the other end of a connection does not have the key" in error.message
    worker.close()
    with pytest.raises(WireError, match="closed at the other end"):
        guest.listen()
    assert guest.channel.limit == LARGEST_GREETING


def test_a_stranger_learns_nothing_and_is_told_nothing(ends: Ends) -> None:
    guest, worker = ends
    worker.send(HELLO)
    assert guest.listen() is None
    challenge = worker.receive()
    assert isinstance(challenge, Challenge)
    assert KEY not in challenge.nonce + challenge.proof
    worker.send(Proof(proof(OTHER, "worker", HELLO, challenge.nonce)))
    with pytest.raises(WireError, match="the worker at the other end"):
        guest.listen()


def test_what_the_driver_said_proves_nothing_about_a_worker(ends: Ends) -> None:
    guest, worker = ends
    worker.send(HELLO)
    guest.listen()
    worker.send(Proof(worker.receive().proof))
    with pytest.raises(WireError, match="does not have the key"):
        guest.listen()


def test_a_greeting_that_was_heard_before_does_not_work_again(ends: Ends) -> None:
    guest, worker = ends
    heard: list[Any] = [HELLO, Proof(proof(KEY, "worker", HELLO, b"d" * BYTES))]
    worker.send(heard[0])
    guest.listen()
    worker.send(heard[1])
    with pytest.raises(WireError, match="does not have the key"):
        guest.listen()


def test_another_number_than_was_proven_is_refused(ends: Ends) -> None:
    guest, worker = ends
    worker.send(HELLO)
    guest.listen()
    nonce = worker.receive().nonce
    worker.send(Proof(proof(KEY, "worker", Hello("worker", 4, 1, HELLO.nonce), nonce)))
    with pytest.raises(WireError, match="does not have the key"):
        guest.listen()


@pytest.mark.parametrize("messages", [[Done()], [Proof(b"")], [HELLO, HELLO], [HELLO, Done()]])
def test_what_is_no_greeting_is_refused(ends: Ends, messages: list[object]) -> None:
    guest, worker = ends
    for message in messages:
        worker.send(message)
    with pytest.raises(WireError, match="a greeting went on with"):
        hear(guest)


def test_a_worker_obeys_nobody_who_did_not_greet(ends: Ends) -> None:
    guest, worker = ends
    guest.channel.send(Start("numpy", Mesh()))
    with pytest.raises(WireError, match="went on with Start instead of Challenge"):
        introduce(worker, KEY, "worker", 0)


def test_the_key_is_for_this_user_alone(tmp_path: Path) -> None:
    key = new_key(tmp_path)
    assert len(key) == BYTES
    assert read_key(tmp_path) == key
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        new_key(tmp_path)
