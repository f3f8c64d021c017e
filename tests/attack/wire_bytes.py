"""Bytes into both ends of a connection between driver and worker, by somebody who has the socket and not the key; and by a worker
that has gone mad.

A message that is sent as it should be has to arrive as it was; nobody without the key is let in.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from mutations import NUMBERS, damaged, name

from unitp.engine.sampling import Sampling
from unitp.mesh import Mesh
from unitp.wire.arrays import Inbox, Outbox
from unitp.wire.channel import HEADER, WireError, encode, for_driver, for_worker
from unitp.wire.greeting import BYTES, Guest, introduce, proof
from unitp.wire.messages import (
    Answer,
    ArrayPart,
    Arrays,
    Challenge,
    Close,
    Decode,
    Decoded,
    Done,
    Failed,
    Free,
    Hello,
    Proof,
    Refused,
    Reply,
    Request,
    Reset,
    Rules,
    Run,
    Start,
    Told,
)  # fmt: skip

NAME = "wire"
KEY = bytes(range(BYTES))
OTHER = bytes(BYTES)


@dataclass(frozen=True)
class Input:
    """What is sent to whom: to a `driver` or `worker` that is known already, to a driver's `guest`, or as a false driver (`greet`)."""

    kind: str
    to: str
    data: bytes
    right: tuple[Any, ...] = ()
    folder: Path = Path()
    cut: int = 1 << 20

    @property
    def harmless(self) -> bool:
        return bool(self.right)


def messages(rng: random.Random) -> dict[str, list[Any]]:
    """Messages as they should be."""
    part = ArrayPart("float32", (2, 1), bytearray(8))
    hello = Hello("worker", 0, 1, bytes(BYTES))
    return {
        "driver": [
            Done(),
            Answer(1.5),
            Arrays({"x": part}),
            Told((7, -1)),
            Decoded(((7, -1), (8, -1)), "no"),
            Refused("no", "hint", (1, 2)),
            Failed("E", "m", "h", "t"),
            hello,
            Proof(bytes(BYTES)),
        ],
        "worker": [
            Start("numpy", Mesh(tp=2)),
            Run("k", {"x": part}, 3, True),
            Decode("k", {"x": part}, 3, Rules(4, 2, (3, 0), Sampling(0.5, 7), (1, 2))),
            Free((1, 2)),
            Reset(0),
            Close(),
            Challenge(bytes(BYTES), bytes(BYTES)),
        ],
    }


def one(rng: random.Random, folder: Path) -> Input:
    to = rng.choice(("driver", "worker"))
    sent = [rng.choice(messages(rng)[to]) for _ in range(rng.choice((1, 2, 5)))]
    data = b"".join(map(encode, sent))
    cut = rng.choice((1, 3, 1000, 1 << 20)) if len(data) < 2000 else 1 << 20
    what = rng.choices(
        ("harmless", "damaged", "noise", "values", "lengths", "guest", "greet", "arrays"), (15, 20, 8, 20, 7, 14, 8, 8)
    )[0]
    match what:
        case "harmless":
            return Input(what, to, data, tuple(sent), folder, cut)
        case "damaged":
            return Input(what, to, damaged(rng, data), (), folder, cut)
        case "noise":
            body = rng.randbytes(rng.choice((0, 1, 50, 70_000)))
            return Input(what, to, rng.choice((body, len(body).to_bytes(HEADER, "little") + body)), (), folder)
        case "values":
            return Input(what, to, framed(values(rng, rng.choice(sent))), (), folder)
        case "lengths":
            length = rng.choice((0, 1, 4096, 4097, 1 << 20, 1 << 30, (1 << 30) + 1, (1 << 32) - 1))
            return Input(
                what, to, length.to_bytes(HEADER, "little") + rng.randbytes(rng.choice((0, 10, 5000))), (), folder
            )
        case "guest":
            return Input(what, "guest", guest(rng), (), folder, cut)
        case "greet":
            challenge = rng.choice(
                (
                    Challenge(bytes(BYTES), rng.randbytes(BYTES)),
                    Challenge(b"", b""),
                    Close(),
                    Challenge(bytes(10**6), bytes(10**6)),
                )
            )
            return Input(
                what,
                "greet",
                rng.choice((bytes(encode(challenge)), damaged(rng, bytes(encode(challenge))))),
                (),
                folder,
            )
        case _:
            return Input(what, "arrays", msgspec.msgpack.encode(part(rng)), (), folder)


def framed(value: Any) -> bytes:
    try:
        return bytes(encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return bytes(encode(None))


def values(rng: random.Random, message: Any) -> Any:
    """A message of which a field, or what is in it, has another value."""
    found = msgspec.to_builtins(message, builtin_types=(bytes, bytearray))
    if isinstance(found, dict) and found:
        key = rng.choice(list(found))
        found[key] = odd(rng)
        if rng.random() < 0.2:
            found[rng.choice(("type", "x", name(rng).encode(errors="replace").decode()))] = odd(rng)
    return found


def odd(rng: random.Random) -> Any:
    deep: Any = 1
    for _ in range(rng.choice((3, 200, 20_000))):
        deep = [deep]
    return rng.choice(
        (
            *rng.sample([n for n in NUMBERS if not isinstance(n, int) or -(2**63) <= n < 2**64], 3), None, True, "", "x" * 5000, b"",
            bytes(5000), [], {}, {"": {}}, [[]],
            {"x": ["float32", [2**62, 4], b"", 0]}, {"x": ["object", [1], b"12345678", -1]}, {"x": ["float32", [-1], b"1234", -1]},
            ["x"] * 999, deep,
            msgspec.msgpack.Ext(5, b"x"), name(rng).encode(errors="replace").decode(), {"axes": [["tp", 10**9]]}, {"axes": [["tp", -1]]},
            {"axes": 7},
        )
    )  # fmt: skip


def guest(rng: random.Random) -> bytes:
    """What somebody says who has not got the key: greetings, proofs by other keys, long frames, words of those who are let in."""
    hello = Hello(
        rng.choice(("worker", "server", "", name(rng).encode(errors="replace").decode())),
        rng.choice((0, -1, 2**62)),
        1,
        rng.randbytes(rng.choice((0, BYTES, 3000))),
    )
    nonce = rng.randbytes(BYTES)
    said = [
        hello, Proof(proof(OTHER, "worker", hello, nonce)), Proof(proof(KEY, "driver", hello, nonce)), Proof(b""), Proof(bytes(BYTES)),
        Done(),
        Arrays({"x": ArrayPart("float32", (900,), bytearray(3600))}), Failed("x" * 4000, "", "", ""),
    ]  # fmt: skip
    order = [hello, *rng.sample(said, rng.choice((0, 1, 3)))] if rng.random() < 0.8 else rng.sample(said, 3)
    data = b"".join(map(encode, order))
    return damaged(rng, data) if rng.random() < 0.3 else data


def part(rng: random.Random) -> ArrayPart:
    """An array in a message, or in the sender's file of 4096 bytes, that says what it likes."""
    shape = rng.choice(((2, 2), (), (0,), (2**62, 4), (-1,), (4,), (1024,), (1025,), (2**31, 0)))
    dtype = rng.choice(
        ("float32", "int64", "bool", "object", "float99", "V8", "", "U4", name(rng).encode(errors="replace").decode())
    )
    offset = rng.choice((-1, -1, 0, 64, 4096, 4097, 2**62, -2))
    return ArrayPart(dtype, shape, bytearray(rng.choice((0, 4, 16, 4096))), offset)


def feed(given: Input) -> bool:
    """Send it. Raises UnitpError (a WireError) where the end that hears it says so."""
    if given.to == "arrays":
        return arrays(given)
    near, far = socket.socketpair()
    with near, far:
        sender = threading.Thread(target=send, args=(far, given.data, given.cut))
        sender.start()
        try:
            return {"driver": heard, "worker": heard, "guest": stranger, "greet": false_driver}[given.to](given, near)
        finally:
            near.close()
            sender.join()


def send(sock: socket.socket, data: bytes, cut: int) -> None:
    with contextlib.suppress(OSError):  # the other end may have heard enough
        for start in range(0, len(data), cut):
            sock.sendall(data[start : start + cut])
        sock.shutdown(socket.SHUT_WR)


def heard(given: Input, near: socket.socket) -> bool:
    channel: Any = for_driver(near) if given.to == "driver" else for_worker(near)
    channel.limit = 1 << 30  # known already
    kinds = (Reply if given.to == "driver" else Request).__args__
    found = []
    try:
        while True:
            found.append(channel.receive())
            assert isinstance(found[-1], kinds)
    except WireError:
        if not given.right:
            raise
    assert tuple(found) == given.right
    return True


def stranger(given: Input, near: socket.socket) -> bool:
    known = Guest(for_driver(near), KEY)
    while True:
        assert known.listen() is None, "somebody without the key is let in"


def false_driver(given: Input, near: socket.socket) -> bool:
    introduce(for_worker(near), KEY, "worker", 0)
    raise AssertionError("a worker serves somebody without the key")


def arrays(given: Input) -> bool:
    """What the array of a message is, with a file of 4096 bytes beside it; and that a good one arrives after it."""
    path = given.folder / "arrays"
    path.write_bytes(bytes(4096))
    found: Any = None
    try:
        found = Inbox(path).get(msgspec.msgpack.decode(given.data, type=ArrayPart))
        assert found.nbytes <= 4096
    finally:
        outbox, whole = Outbox(path, 16), np.arange(40, dtype=np.int64)
        assert np.array_equal(Inbox(path).get(outbox.put(whole)), whole)
    return False
