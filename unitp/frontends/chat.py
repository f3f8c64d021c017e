"""Turns chat messages into a prompt by the model's template, which is untrusted code and runs in a limited process (`render`).

The process has limits of time and memory, an environment with nothing but the time zone, and no open files but its
request and answer. It is always killed in the end. It takes 60 ms to start.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec

import unitp.frontends.render
from unitp.errors import HostError, InputError, ModelError
from unitp.frontends.model import Model
from unitp.host import at_host

SECONDS = 2
"""Seconds of processor time that the process may use, start included."""
PATIENCE_S = 20.0
"""Seconds after which the process is ended, on a host that is busy with other things."""
MEMORY = 512 * 2**20
OUTPUT = 32 * 2**20
"""The most bytes of a prompt."""
WORDS = 4096
"""The most bytes that are read of what a failed process wrote to standard error."""
TOO_MUCH = {
    "memory": f"needs more than {MEMORY >> 20} MiB of memory",
    "output": f"makes a prompt of more than {OUTPUT >> 20} MiB",
}
WITHOUT = "Write the prompt out, without --chat."

SCRIPT = Path(unitp.frontends.render.__file__).absolute()


class Message(msgspec.Struct, frozen=True):
    """A message of a chat. `role` is "system", "user" or "assistant"."""

    role: str
    content: str


class _Answer(msgspec.Struct, frozen=True):
    """The answer of the process: exactly one of these fields is given (see `render`)."""

    text: str | None = None
    refused: str | None = None
    error: str | None = None
    limit: Literal["memory", "output"] | None = None


def chat_prompt(model: Model, messages: Sequence[Message], *, answer: bool = True) -> str:
    """Return the prompt for these messages. With `answer`, it ends where the assistant's words begin.

    Raises ModelError if the model has no template, or the template fails, refuses the messages, or needs more than
    `SECONDS`, `MEMORY` or `OUTPUT`. Raises InputError for messages that are not Unicode.
    """
    if model.decoder is None or not model.decoder.chat_template:
        raise ModelError(f"model {model.name} has no chat template", hint="Leave out --chat.")
    given: dict[str, Any] = {
        "messages": [{"role": m.role, "content": m.content} for m in messages],
        "tools": None,  # as transformers does: a template asks whether they are none, or whether they are defined
        "documents": None,
        "add_generation_prompt": answer,
        "bos_token": model.decoder.bos_token,
        "eos_token": model.decoder.eos_token,
    }
    try:
        request = msgspec.json.encode({"template": model.decoder.chat_template, "variables": given})
    except UnicodeEncodeError as error:
        raise InputError(f"a message of the chat is not Unicode: {error.reason}") from None
    failed = f"the chat template of {model.name}"
    found = _answer(request, failed)
    if found.refused is not None:
        raise ModelError(f"the model's chat template says: {found.refused}")
    if found.limit:
        raise ModelError(f"{failed} {TOO_MUCH[found.limit]}", hint=WITHOUT)
    if found.text is None:
        raise ModelError(f"{failed} failed: {found.error}")
    return found.text


def _answer(request: bytes, failed: str) -> _Answer:
    """Return the answer of a new process. Raises ModelError, which begins with `failed`, if it ends without an answer."""
    with at_host("the process of a chat template"), _unnamed("request") as given, _unnamed("answer") as taken:
        given.write(request)
        given.seek(0)
        code, words = _run(given.fileno(), taken.fileno())
        taken.seek(0)
        found = taken.read(OUTPUT + 1)
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        raise ModelError(f"{failed} takes more than {SECONDS} s: it was ended", hint=WITHOUT)
    try:
        return msgspec.json.decode(found, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        how = f"by {signal.strsignal(-code)}" if code < 0 else f"with exit code {code}"
        last = words.decode(errors="replace").strip().rpartition("\n")[2]
        raise ModelError(
            f"{failed} failed: its process ended {how}{f', {last}' if last else ''}", hint=WITHOUT
        ) from None


def _run(given: int, taken: int) -> tuple[int, bytes]:
    """Run a process on these open files (request, answer). Return its exit code and the end of its standard error."""
    if not sys.executable:
        raise HostError("this program does not know its Python interpreter, which renders chat templates")
    limits = map(str, (SECONDS, MEMORY, OUTPUT))
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", os.fspath(SCRIPT), *limits, *_folders()],
        bufsize=0,
        stdin=given,
        stdout=taken,
        stderr=subprocess.PIPE,
        env=_environment(),
        cwd="/",
        start_new_session=True,
    ) as process:
        assert process.stderr is not None  # `Popen` promises that
        begun = time.monotonic()
        try:
            ended = select.poll()
            ended.register(process.stderr)
            ended.poll(PATIENCE_S * 1e3)  # its standard error ends with it; `wait` alone looks every 50 ms
            code = process.wait(max(0.0, begun + PATIENCE_S - time.monotonic()))
            os.set_blocking(process.stderr.fileno(), False)
            return code, process.stderr.read(WORDS) or b""
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL, b""
        finally:
            process.kill()


def _folders() -> list[str]:
    """Return the folders of jinja2 and its dependencies."""
    specs = [find_spec(name) for name in ("jinja2", "markupsafe")]
    return [*dict.fromkeys(os.fspath(Path(s.origin).absolute().parents[1]) for s in specs if s and s.origin)]


def _environment() -> dict[str, str]:
    """Return the environment of the process: the time zone, and the variables by which an interpreter finds its libraries."""
    found = {name: os.environ[name] for name in ("TZ", "LD_LIBRARY_PATH") if name in os.environ}
    if "LD_LIBRARY_PATH" in found:
        folders = found["LD_LIBRARY_PATH"].split(os.pathsep)
        found["LD_LIBRARY_PATH"] = os.pathsep.join(filter(os.path.isabs, folders))
    return found


def _unnamed(name: str) -> Any:
    """Return a new file in memory, which has no path."""
    return os.fdopen(os.memfd_create(f"unitp-{name}"), "w+b", buffering=0)
