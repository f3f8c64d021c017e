"""A chat template is a stranger's code: it makes a prompt, and can do nothing else."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest

import unitp
from unitp.errors import ModelError
from unitp.frontends.chat import Message, chat_prompt
from unitp.frontends.model import Decoder, Model
from unitp.testing.models import tiny

MESSAGES = [Message("system", "Be brief."), Message("user", "Hi & bye")]


def prompt(template: str, *, answer: bool = True, messages: list[Message] | None = None) -> str:
    decoder = Decoder(64, 97, (), chat_template=template, bos_token="<s>", eos_token="</s>")
    return chat_prompt(Model("chatty", tiny().graph, decoder), messages or MESSAGES, answer=answer)


def test_smollm2_is_asked_in_its_own_words() -> None:
    model = unitp.load("smollm2-135m")
    assert chat_prompt(model, [Message("user", "Hi")]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat_prompt(model, MESSAGES, answer=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi & bye<|im_end|>\n"
    )


def test_a_template_sees_messages_and_tokens() -> None:
    assert prompt("{{ bos_token }}{{ messages[1]['content'] }}{{ messages[0].role }}{{ eos_token }}") == (
        "<s>Hi & byesystem</s>"
    )
    assert prompt("{% if add_generation_prompt %}A{% endif %}{% if tools %}T{% endif %}") == "A"
    assert prompt("{% if add_generation_prompt %}A{% endif %}", answer=False) == ""


def test_what_templates_of_the_hub_use() -> None:
    assert (
        prompt("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}")
        == "system"
    )
    assert prompt("{%- set ns = namespace(n=0) %}{% set ns.n = 3 %}{{ ns.n }}") == "3"
    assert prompt('{{ {"é": "<a>"} | tojson }}') == '{"é": "<a>"}'
    assert prompt("{{ strftime_now('%Y') }}") == f"{datetime.now():%Y}"
    assert prompt("  {% if true %}\nx\n  {% endif %}\n") == "x\n"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__ }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ strftime_now.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('touch PLACE').read() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ '{0.__class__}'.format('') }}",
        "{% set _ = messages.append(1) %}",
        "{% set _ = messages.clear() %}",
        "{% set _ = messages[0].update({'role': 'x'}) %}",
        "{% set _ = messages[0].pop('role') %}",
        "{% set _ = messages[0].__setitem__('role', 'x') %}",
        "{% set messages.x = 1 %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends '/etc/passwd' %}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template: str, tmp_path: Path) -> None:
    place = tmp_path / "done"
    with pytest.raises(ModelError, match="the chat template of chatty failed"):
        prompt(template.replace("PLACE", str(place)))
    assert not place.exists()
    assert [(m.role, m.content) for m in MESSAGES] == [("system", "Be brief."), ("user", "Hi & bye")]


@pytest.mark.parametrize(
    "template,kind",
    [
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ nothing.more }}", "UndefinedError"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ messages | tojson(indent='x', nope=1) }}", "TypeError"),
        ("{% for i in range(10**9) %}{% endfor %}", "OverflowError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ strftime_now(3) }}", "TypeError"),
        ("{{ 'x' | no_such_filter }}", "TemplateAssertionError"),
    ],
)
def test_a_broken_template_is_named_with_its_error(template: str, kind: str) -> None:
    with pytest.raises(ModelError, match=f"the chat template of chatty failed: {kind}"):
        prompt(template)


def test_a_template_can_refuse_messages() -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}ok"
    with pytest.raises(ModelError, match=re.escape("the model's chat template says: System role not supported")):
        prompt(template)
    assert prompt(template, messages=MESSAGES[1:]) == "ok"


def test_a_model_without_a_template_says_so() -> None:
    with pytest.raises(ModelError, match="model tiny has no chat template") as caught:
        chat_prompt(tiny(), MESSAGES)
    assert "--chat" in caught.value.hint
    with pytest.raises(ModelError, match="has no chat template"):
        chat_prompt(Model("graph", tiny().graph), MESSAGES)
