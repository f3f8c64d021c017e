"""Whatever bytes come, a channel gives a message of its type or ends with a WireError; whatever is sent arrives."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from unitp.wire.arrays import Inbox, Outbox
from unitp.wire.channel import HEADER, WireError, encode, for_driver, for_worker
from unitp.wire.messages import ArrayPart, Reply, Request, Run

DTYPES = st.sampled_from(["float32", "float64", "int64", "int32", "bool"])
REPLIES, REQUESTS = Reply.__args__, Request.__args__


@given(st.binary(max_size=300), st.booleans())
def test_nonsense_is_an_error_or_a_message(data: bytes, framed: bool) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(len(data).to_bytes(HEADER, "little") + data if framed else data)
        far.shutdown(socket.SHUT_WR)
        channel = for_driver(near)
        try:
            while True:
                assert isinstance(channel.receive(), REPLIES)
        except WireError:
            return


@given(st.data(), st.integers(0, 200))
def test_a_damaged_frame_is_an_error_or_a_message(data: st.DataObject, place: int) -> None:
    frame = encode(
        Run("key", {"x": ArrayPart("float32", (2, 1), bytearray(8)), "y": ArrayPart("bool", (3,), offset=64)})
    )
    frame[place % len(frame)] = data.draw(st.integers(0, 255))
    near, far = socket.socketpair()
    with near, far:
        far.sendall(frame)
        far.shutdown(socket.SHUT_WR)
        channel = for_worker(near)
        try:
            assert isinstance(channel.receive(), REQUESTS)
        except WireError:
            return


@given(
    st.lists(
        DTYPES.flatmap(lambda d: arrays.arrays(d, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0))), max_size=4
    ),
    st.sampled_from([0, 16, 1 << 16]),
    st.integers(1, 50),
)
@settings(max_examples=50)
def test_arrays_arrive_as_they_were_however_they_are_cut(sent: list[Any], inline: int, piece: int) -> None:
    near, far = socket.socketpair()
    with near, far, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays"
        outbox, inbox, channel = Outbox(path, inline), Inbox(path), for_worker(near)
        frame = encode(Run("key", {str(i): outbox.put(array) for i, array in enumerate(sent)}))
        for start in range(0, len(frame), max(piece, len(frame) // 20)):
            far.sendall(frame[start : start + max(piece, len(frame) // 20)])
        message = channel.receive()
        assert isinstance(message, Run)
        for i, array in enumerate(sent):
            got = inbox.get(message.inputs[str(i)])
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array)
