"""The greeting between driver and worker: each proves that it has the session's key, and neither reveals it.

    worker   Hello       who it is, and random bytes
    driver   Challenge   random bytes, and HMAC-SHA256(key, "driver" and all of both)
    worker   Proof       HMAC-SHA256(key, "worker" and all of both)

The key lies in the session's folder, which only this user can enter. It is not in the environment of processes, because
they pass that on to others. So whoever has the address but not the key learns nothing.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import Any

import msgspec

from unitp.wire.channel import LARGEST, Channel, WireError
from unitp.wire.messages import Challenge, Hello, Proof, Reply, Request

KEY = "key"
SOCKET = "driver.sock"
BYTES = 32


def new_key(folder: Path) -> bytes:
    """A new key, written to the folder for the processes of the session."""
    key = secrets.token_bytes(BYTES)
    descriptor = os.open(folder / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(key)
    return key


def read_key(folder: Path) -> bytes:
    return (folder / KEY).read_bytes()


class Guest:
    """A process that has connected to the driver and has not yet proven who it is."""

    def __init__(self, channel: Channel[Reply], key: bytes) -> None:
        self.channel, self._key = channel, key
        self._hello: Hello | None = None
        self._nonce = secrets.token_bytes(BYTES)

    def listen(self) -> Hello | None:
        """Read what has arrived. Returns who it is once that is proven, and from then on its frames may be long.

        Raises WireError for a stranger.
        """
        self.channel.read()
        while (message := self.channel.take()) is not None:
            if self._hello is None:
                if not isinstance(message, Hello):
                    raise _unexpected(message, Hello)
                self._hello = message
                self.channel.send(Challenge(self._nonce, proof(self._key, "driver", message, self._nonce)))
            else:
                if not isinstance(message, Proof):
                    raise _unexpected(message, Proof)
                require(message.proof, self._key, "worker", self._hello, self._nonce)
                self.channel.limit = LARGEST
                return self._hello
        return None


def introduce(channel: Channel[Request], key: bytes, role: str, number: int) -> None:
    """Greet the driver. Raises WireError if the other end is not the driver of this session."""
    hello = Hello(role, number, os.getpid(), secrets.token_bytes(BYTES))
    channel.send(hello)
    answer = channel.receive()
    if not isinstance(answer, Challenge):
        raise _unexpected(answer, Challenge)
    require(answer.proof, key, "driver", hello, answer.nonce)
    channel.send(Proof(proof(key, "worker", hello, answer.nonce)))


def proof(key: bytes, who: str, hello: Hello, nonce: bytes) -> bytes:
    """The bytes that only an owner of the key can compute, for this greeting alone."""
    return hmac.digest(key, msgspec.msgpack.encode((who, hello, nonce)), "sha256")


def require(given: bytes, key: bytes, who: str, hello: Hello, nonce: bytes) -> None:
    """Raise WireError if a proof is wrong."""
    if not hmac.compare_digest(given, proof(key, who, hello, nonce)):
        raise WireError(f"the {who} at the other end of a connection does not have the key of this session")


def _unexpected(message: object, wanted: type[Any]) -> WireError:
    return WireError(f"a greeting went on with {type(message).__name__} instead of {wanted.__name__}")
