"""What may come over a control connection, and what ends it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitp.mesh import Mesh
from unitp.wire.arrays import Inbox, Outbox
from unitp.wire.channel import LARGEST, LARGEST_GREETING, Channel, WireError, encode, for_driver, for_worker
from unitp.wire.messages import ArrayPart, Arrays, Run, Start


@pytest.fixture
def pair() -> Iterator[tuple[Channel[Any], Channel[Any]]]:
    """The driver's and the worker's end of one connection."""
    near, far = socket.socketpair()
    ends = for_driver(near), for_worker(far)
    yield ends
    for end in ends:
        end.close()


Ends = tuple[Channel[Any], Channel[Any]]


def test_messages_arrive_whole_and_in_order(pair: Ends) -> None:
    driver, worker = pair
    sent = [
        Start("numpy", Mesh(dp=2, tp=3)),
        Run("0:decode", {"x": ArrayPart("bool", (1,), bytearray(b"\1"))}),
    ]
    for message in sent:
        driver.send(message)
    assert [worker.receive(), worker.receive()] == sent


def test_a_frame_in_pieces_is_taken_up_where_it_stopped(pair: Ends) -> None:
    driver, worker = pair
    frame = encode(Start("numpy", Mesh()))
    driver.send_frame(frame[:7])
    worker.read()
    assert worker.take() is None
    driver.send_frame(frame[7:])
    assert isinstance(worker.receive(), Start)


def test_a_long_frame_is_refused_before_it_is_read(pair: Ends) -> None:
    driver, worker = pair
    worker.send_frame((LARGEST_GREETING + 1).to_bytes(4, "little"))
    with pytest.raises(WireError, match="4097 bytes was announced"):
        driver.receive()


def test_a_message_of_another_direction_is_refused(pair: Ends) -> None:
    driver, worker = pair
    worker.send(Start("numpy", Mesh()))
    with pytest.raises(WireError, match="is not a message"):
        driver.receive()


def test_the_end_of_a_connection_is_an_error(pair: Ends) -> None:
    driver, worker = pair
    worker.close()
    with pytest.raises(WireError, match="closed at the other end"):
        driver.receive()


def test_arrays_go_inline_or_through_the_file(tmp_path: Path) -> None:
    outbox, inbox = Outbox(tmp_path / "arrays", inline=64), Inbox(tmp_path / "arrays")
    arrays = [np.arange(8.0), np.arange(500).reshape(5, 100)[:, ::2], np.array(True), np.zeros((3, 0), np.int32)]
    for _ in range(2):  # places are used again
        outbox.clear()
        parts = [outbox.put(array) for array in arrays]
        assert [part.offset for part in parts] == [-1, 0, -1, -1]
        for array, part in zip(arrays, parts, strict=True):
            np.testing.assert_array_equal(inbox.get(part), array)


def test_a_growing_file_is_mapped_again(tmp_path: Path) -> None:
    outbox, inbox = Outbox(tmp_path / "arrays", inline=0), Inbox(tmp_path / "arrays")
    for size in (10, 100_000, 1_000_000, 20):
        outbox.clear()
        array = np.random.default_rng(size).normal(size=size)
        np.testing.assert_array_equal(inbox.get(outbox.put(array)), array)


@pytest.mark.parametrize(
    "part",
    [
        ArrayPart("object", (1,), bytearray(8)),
        ArrayPart("float32", (-1,), bytearray(4)),
        ArrayPart("float32", (2,), bytearray(4)),
        ArrayPart("float32", (2,), offset=0),
        ArrayPart("float32", (1 << 60,), offset=1 << 40),
    ],
)
def test_an_unsound_array_is_refused(tmp_path: Path, part: ArrayPart) -> None:
    with pytest.raises(WireError):
        Inbox(tmp_path / "arrays").get(part)


def test_a_message_that_holds_arrays_survives_the_wire(pair: Ends, tmp_path: Path) -> None:
    driver, worker = pair
    outbox = Outbox(tmp_path / "arrays", inline=16)
    sent = {"small": np.arange(2), "large": np.arange(100.0)}
    driver.limit = LARGEST
    worker.send(Arrays({name: outbox.put(array) for name, array in sent.items()}))
    inbox, got = Inbox(tmp_path / "arrays"), driver.receive()
    assert isinstance(got, Arrays)
    for name, array in sent.items():
        np.testing.assert_array_equal(inbox.get(got.arrays[name]), array)
