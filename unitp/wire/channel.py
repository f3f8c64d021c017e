"""Frames over a local socket: four bytes of length, then a msgpack message of a declared type. Nothing else is accepted.

A frame that is too long, cut short or not of the declared type ends the connection with a WireError; there is no
resynchronisation. A `Channel` keeps what it has read, so an interrupted `receive` (Ctrl-C) can be repeated.
"""

from __future__ import annotations

import select
import socket
from typing import Generic, TypeVar

import msgspec

from unitp.errors import RankError
from unitp.wire.messages import Reply, Request

HEADER = 4
LARGEST = 1 << 30
LARGEST_GREETING = 4096

Received = TypeVar("Received")


class WireError(RankError):
    """The other end sent an invalid message, or is gone."""


def encode(message: object) -> bytearray:
    """The bytes of the frame of a message."""
    frame = bytearray(HEADER)
    _ENCODER.encode_into(message, frame, HEADER)
    size = len(frame) - HEADER
    if size > LARGEST:
        raise WireError(f"a {type(message).__name__} of {size} bytes is too long for a frame")
    frame[:HEADER] = size.to_bytes(HEADER, "little")
    return frame


_ENCODER = msgspec.msgpack.Encoder()


class Channel(Generic[Received]):
    """One end of a connection. It receives messages of the type of its `decoder`."""

    def __init__(self, sock: socket.socket, decoder: msgspec.msgpack.Decoder[Received], limit: int = LARGEST) -> None:
        self.socket, self.limit = sock, limit
        self._decoder = decoder
        self._buffer = bytearray()

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: object) -> None:
        self.send_frame(encode(message))

    def send_frame(self, frame: bytes | bytearray) -> None:
        try:
            self.socket.sendall(frame)
        except OSError as error:
            raise WireError(f"the connection is lost: {error.strerror}") from None

    def receive(self) -> Received:
        """Wait for the next message and return it. Raises WireError at the end of the connection."""
        while (message := self.take()) is None:
            self.read()
        return message

    def read(self) -> None:
        """Read what has arrived, waiting for at least one byte."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError as error:
            raise WireError(f"the connection is lost: {error.strerror}") from None
        if not data:
            raise WireError("the connection was closed at the other end")
        self._buffer += data

    def take(self) -> Received | None:
        """The next message if it has been read completely, else None."""
        if len(self._buffer) < HEADER:
            return None
        end = HEADER + int.from_bytes(self._buffer[:HEADER], "little")
        if end - HEADER > self.limit:
            raise WireError(f"a frame of {end - HEADER} bytes was announced; at most {self.limit} are taken")
        if len(self._buffer) < end:
            return None
        body = bytes(memoryview(self._buffer)[HEADER:end])
        del self._buffer[:end]
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, ValueError) as error:  # ValueError: text that is not UTF-8
            raise WireError(f"a frame of {len(body)} bytes is not a message: {error}") from None

    def take_all(self) -> list[Received]:
        """All messages that have been read completely."""
        found = []
        while (message := self.take()) is not None:
            found.append(message)
        return found

    def wait_for_end(self) -> None:
        """Return when the other end has closed the connection. Messages not yet read stay unread."""
        poller = select.poll()
        poller.register(self.socket, select.POLLRDHUP)
        poller.poll()

    def close(self) -> None:
        self.socket.close()


def for_driver(sock: socket.socket) -> Channel[Reply]:
    """The driver's end. Until the other end has proven itself, it accepts only frames as short as a greeting."""
    return Channel(sock, msgspec.msgpack.Decoder(Reply), LARGEST_GREETING)


def for_worker(sock: socket.socket) -> Channel[Request]:
    """The worker's end."""
    return Channel(sock, msgspec.msgpack.Decoder(Request))
