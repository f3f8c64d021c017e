"""Chat messages to a prompt, by the model's own template in jinja2's immutable sandbox.

A template is code from a model file: in a plain environment it could run commands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

import msgspec
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from unitp.errors import ModelError, from_signal
from unitp.frontends.model import Model


class Message(msgspec.Struct, frozen=True):
    """`role` is system, user or assistant."""

    role: str
    content: str


class _Sandbox(ImmutableSandboxedEnvironment):
    """Refuses what is unsafe at once; jinja2's own prints nothing in its place and goes on."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        raise SecurityError(f"access to {attribute!r} of a {type(obj).__name__} is unsafe")


def chat_prompt(model: Model, messages: Sequence[Message], *, answer: bool = True) -> str:
    """The prompt for these messages; with `answer`, up to where the assistant's words begin.

    Raises ModelError where the model has no template, or the template refuses the messages.
    """
    if model.decoder is None or not model.decoder.chat_template:
        raise ModelError(f"model {model.name} has no chat template", hint="Leave out --chat.")
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    given: dict[str, Any] = {
        "messages": [{"role": m.role, "content": m.content} for m in messages],
        "add_generation_prompt": answer,
        "bos_token": model.decoder.bos_token,
        "eos_token": model.decoder.eos_token,
    }
    try:
        return environment.from_string(model.decoder.chat_template).render(**given)
    except ModelError:
        raise
    except Exception as error:
        # a template is a stranger's code: it can raise anything
        if from_signal(error):
            raise
        raise ModelError(f"the chat template of {model.name} failed: {type(error).__name__}: {error}") from None


def _refuse(message: str) -> NoReturn:
    raise ModelError(f"the model's chat template says: {message}")
