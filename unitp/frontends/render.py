"""The process in which a chat template is rendered: `python -I -S .../render.py SECONDS MEMORY OUTPUT FOLDER...`.

A template is untrusted code. The sandbox keeps it away from everything outside, but it may still compute forever or use
all memory; only limits on a process prevent that. So limits are set first, then the request is read (JSON on standard
input), then the template runs. The answer (JSON on standard output) is `text`, or `refused` (by `raise_exception`), or
`error`, or the `limit` that was reached.

This file is run by its path, with jinja2 from FOLDER... and nothing else of unitp. Tags, globals and filters are those of
transformers (`transformers.utils.chat_template_utils`, 5.23), so that a template means here what its author saw.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST = 2000
"""The most characters of an error's text that are reported."""


def limit(kind: int, most: int, hard: int | None = None) -> None:
    """Lower a limit of this process. A limit that is already lower stays."""
    found = resource.getrlimit(kind)[1]
    least = [n if found == resource.RLIM_INFINITY else min(n, found) for n in (most, hard or most)]
    resource.setrlimit(kind, (least[0], least[1]))


def limit_all(seconds: int, memory: int, output: int) -> None:
    """Limit this process to seconds of processor time and bytes of memory and output. It cannot write other files or start processes."""
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_CPU, seconds, seconds + 1)  # SIGXCPU, then SIGKILL
    limit(resource.RLIMIT_AS, memory)
    limit(resource.RLIMIT_FSIZE, output)
    limit(resource.RLIMIT_NPROC, 0)


def environment() -> Environment:
    """Return the sandbox, with everything that transformers gives to chat templates."""
    from datetime import datetime
    from typing import NoReturn

    from jinja2 import nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Sandbox(ImmutableSandboxedEnvironment):
        """A sandbox that refuses unsafe access with an error; that of jinja2 goes on and prints nothing instead."""

        def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
            raise SecurityError(f"access to {attribute!r} of a {type(obj).__name__} is unsafe")

    class Generation(Extension):
        """`{% generation %}` stands around the assistant's words. It marks them for training, and prints them unchanged."""

        tags = {"generation"}  # noqa: RUF012  (jinja2's declaration is not a ClassVar)

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("said"), [], [], body).set_lineno(line)

        def said(self, caller: Any) -> Any:
            return caller()

    class Dict:
        """`dict(...)` and `dict.fromkeys(...)`, without the type."""

        def __call__(self, *args: Any, **names: Any) -> dict[Any, Any]:
            return dict(*args, **names)

        def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
            return dict.fromkeys(keys, value)

    class Plain(Namespace):
        """A namespace without names that begin with an underscore."""

        def __init__(*args: Any, **names: Any) -> None:  # so that `namespace(self=...)` is legal
            own, *others = args
            found = dict(*others, **names)
            for name in found:
                require(name)
            Namespace.__init__(own, found)

        def __setitem__(self, name: str, value: Any) -> None:
            require(name)
            super().__setitem__(name, value)

    def require(name: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace has no name {name!r}: it begins with an underscore")

    def refuse(message: Any) -> NoReturn:
        raise RefusedError(message)

    def to_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        """JSON without jinja2's escapes for HTML."""
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    made.filters["tojson"] = to_json
    made.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda pattern: datetime.now().strftime(pattern),
        "dict": Dict(),
        "namespace": Plain,
    }
    return made


class RefusedError(Exception):
    """The template called `raise_exception`."""


def answer(request: dict[str, Any]) -> bytes:
    """Return the answer to a request of `template` and `variables`."""
    try:
        text = environment().from_string(request["template"]).render(**request["variables"])
        return json.dumps({"text": text}, ensure_ascii=False).encode()
    except RefusedError as error:
        return told("refused", error)
    except MemoryError:
        return b'{"limit": "memory"}'
    except Exception as error:  # noqa: BLE001  (a template can raise anything: the answer says what)
        return told("error", error)


def told(kind: str, error: Exception) -> bytes:
    """Return an answer with the text of an error. Making the text may run code of the template, and fail again."""
    try:
        words = str(error)[:LONGEST]
    except Exception as other:  # noqa: BLE001  (the text of an error can be computed by the template, too)
        words = type(other).__name__
    name = f"{type(error).__name__}: " if kind == "error" else ""
    return json.dumps({kind: f"{name}{words}"}).encode()


def main() -> None:
    seconds, memory, output = map(int, sys.argv[1:4])
    limit_all(seconds, memory, output)
    sys.path += sys.argv[4:]
    found = answer(json.load(sys.stdin.buffer))
    sys.stdout.buffer.write(found if len(found) <= output else b'{"limit": "output"}')


if __name__ == "__main__":
    main()
