"""Data as a stranger damages it: bytes, numbers, and values as JSON has them."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from hostile import EVERYTHING, NAMES

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 7, 63, 64, 65, 255, 256, 4095, 4096, 10**6, 10**7, 10**9),
    *(
        2**31 - 1,
        2**31,
        2**32 - 1,
        2**32,
        2**53,
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64,
        10**30,
        10**39,
        10**400,
        -(2**63),
        -(10**30),
    ),
    *(0.0, -0.0, 0.5, 1.5, 1e-320, 1e-30, 1e30, 1e308, -1e308, 2.0),
)


class Raw(str):
    """A piece of JSON as it is written."""


class Twice(dict[str, Any]):
    """An object whose first key is there twice, the second time with another value."""


RAW = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "0x10", "01", "1.", "nul", "'x'", '"\\ud800"', '"\\udc00\\ud800"',
       '"\\u0000"', "[" * 200 + "]" * 200, "[" * 100_000, '{"a":' * 5000, "", ",", "{,}", "[1,]", "\ufeff1", "/* */1")  # fmt: skip
"""What is not JSON, or not JSON that all read alike."""


def dump(value: Any) -> str:
    """JSON, or what looks like it."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        entries = [f"{json.dumps(key)}: {dump(inner)}" for key, inner in value.items()]
        if isinstance(value, Twice) and entries:
            entries.append(f"{json.dumps(next(iter(value)))}: {dump(odd(random.Random(len(entries))))}")
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(dump, value))}]"
    try:
        return json.dumps(value)
    except ValueError:  # a number of thousands of digits
        return "1" + "0" * 400


def name(rng: random.Random) -> str:
    """A name that somebody might obey."""
    return rng.choice(
        (*NAMES.values(), EVERYTHING, "", " ", "\0", "\udcff", "x" * rng.choice((70, 5000)), "é" * 300, "__class__", "..", "/etc/passwd")
    )  # fmt: skip


def odd(rng: random.Random) -> Any:
    """A value that nobody expects."""
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind == 3:
        return name(rng)
    if kind == 4:
        return rng.choice((None, True, False, [], {}, [[]], [{}], {"": None}, [None], "1", "0"))
    if kind == 5:
        return Raw(rng.choice(RAW))
    if kind == 6:
        return [rng.choice(NUMBERS) for _ in range(rng.choice((1, 3, 300)))]
    return nested(rng, rng.choice((5, 50, 70, 900)))


def nested(rng: random.Random, depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return Raw(_flat(value, depth))


def _flat(value: Any, depth: int) -> str:
    """The JSON of a value that is too deep for recursion."""
    opens, closes = [], []
    for _ in range(depth):
        if isinstance(value, dict):
            opens.append('{"a": ')
            closes.append("}")
            value = value["a"]
        else:
            opens.append("[")
            closes.append("]")
            value = value[0]
    return "".join([*opens, str(value), *reversed(closes)])


def places(value: Any) -> list[tuple[Any, Any]]:
    """Containers and keys of all values within."""
    found: list[tuple[Any, Any]] = []
    left = [value]
    while left:
        inner = left.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        for key in keys:
            found.append((inner, key))
            if isinstance(inner[key], dict | list):
                left.append(inner[key])
    return found


def changed(rng: random.Random, value: Any, times: int | None = None) -> Any:
    """A copy with some values changed, dropped, doubled, renamed, or moved to other places."""
    found = copy.deepcopy(value)
    for _ in range(times or rng.choice((1, 1, 1, 2, 4))):
        at = places(found)
        if not at:
            return odd(rng)
        inner, key = rng.choice(at)
        other, place = rng.choice(at)
        match rng.randrange(9):
            case 0:
                del inner[key]
            case 1 if isinstance(inner, dict):
                inner[name(rng)] = inner.pop(key)
            case 2 if isinstance(inner, dict):
                inner[name(rng)] = odd(rng)
            case 3 if isinstance(inner, list):
                inner *= rng.choice((2, 3, 50))
            case 4:
                inner[key] = copy.deepcopy(other[place])
            case 5 if isinstance(inner[key], dict):
                inner[key] = Twice(inner[key])
            case 6 if type(inner[key]) is int:
                inner[key] += rng.choice((-1, 1, 2, 8, 32, -inner[key], 1 << 32, 1 << 64))
            case _:
                inner[key] = odd(rng)
    return found


def damaged(rng: random.Random, data: bytes, first: int | None = None) -> bytes:
    """Bytes flipped, cut, put in or doubled; mostly among the `first`, where headers are."""
    found = bytearray(data or b"x")
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        most = min(len(found), first or len(found)) if rng.random() < 0.8 else len(found)
        at = rng.randrange(most + 1)
        match rng.randrange(8):
            case 0 | 1 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 2 if at < len(found):
                found[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 3:
                del found[at:]
            case 4:
                del found[at : at + rng.choice((1, 4, 8, 100))]
            case 5:
                found[at:at] = rng.randbytes(rng.choice((1, 4, 8, 100)))
            case 6:
                found[at:at] = found[rng.randrange(len(found) + 1) :][: rng.choice((8, 100, 4000))]
            case _:
                word = rng.choice(NUMBERS)
                if isinstance(word, int) and at + 8 <= len(found):
                    found[at : at + 8] = (word % (1 << 64)).to_bytes(8, "little")
    return bytes(found)
