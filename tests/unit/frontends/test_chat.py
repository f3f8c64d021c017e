"""A chat template is a stranger's code: it makes a prompt, and can do nothing else."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from pathlib import Path

import pytest
from chats import TEMPLATES

import unitp
from unitp.errors import HostError, InputError, ModelError
from unitp.frontends import chat
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


CONVERSATIONS = [
    [Message("user", " Hi & <bye>\n")],
    [Message("system", "Be brief."), Message("user", "Grüße\n"), Message("assistant", "<think>x</think>\nHello"), Message("user", "?")],
    [Message("assistant", "I begin"), Message("user", "so?"), Message("user", "twice")],
]  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_means_what_it_means_to_transformers(name: str) -> None:
    known = pytest.importorskip("transformers.utils.chat_template_utils")
    for number, messages in enumerate(CONVERSATIONS):
        answer = number != 2
        plain = [{"role": m.role, "content": m.content} for m in messages]
        more = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": answer}
        try:
            wanted = known.render_jinja_template(conversations=[plain], chat_template=TEMPLATES[name], **more)[0][0]
        except Exception as error:  # noqa: BLE001  (what is compared is whether the template refuses, and its words)
            with pytest.raises(ModelError, match=re.escape(f"the model's chat template says: {error}")):
                prompt(TEMPLATES[name], answer=answer, messages=messages)
        else:
            assert prompt(TEMPLATES[name], answer=answer, messages=messages) == wanted


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
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ dict.__class__ }}",
        "{{ dict.fromkeys.__func__ }}",
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


# limits


@pytest.mark.parametrize(
    "template,message",
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes more than 1 s"),
        ("{{ 7 ** (7 ** 99) }}", "takes more than 1 s"),  # while it is compiled
        ("{{ 'x' * 4000000000 }}", "needs more than 512 MiB of memory"),
        ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "512 MiB"),
        ("{{ 'x' * 40000000 }}", "makes a prompt of more than 32 MiB"),
    ],
)
def test_a_template_is_ended_where_it_takes_too_much(
    template: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "PATIENCE_S", 100.0)  # its own limits end it, not the clock
    monkeypatch.setattr(chat, "SECONDS", 1 if "takes more" in message else 10)
    with pytest.raises(ModelError, match=f"the chat template of chatty .*{message}") as caught:
        prompt(template)
    assert "without --chat" in caught.value.hint


def test_a_template_that_waits_is_ended_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No template can wait; a process that is stopped does."""
    script = tmp_path / "wait.py"
    script.write_text(
        "import os, pathlib, time\npathlib.Path(__file__).with_name('pid').write_text(str(os.getpid()))\ntime.sleep(99)\n"
    )
    monkeypatch.setattr(chat, "SCRIPT", script)
    monkeypatch.setattr(chat, "PATIENCE_S", 0.5)
    with pytest.raises(ModelError, match="takes more than 2 s"):
        prompt("x")
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


PROBE = """
import json, os, sys
numbers = sorted(map(int, os.listdir('/proc/self/fd')))
found = {
    'environment': sorted(os.environ), 'folder': os.getcwd(), 'path': sys.path,
    'flags': [sys.flags.isolated, sys.flags.no_site],
    'files': [os.readlink(at) for at in map('/proc/self/fd/{}'.format, numbers) if os.path.lexists(at)],
}
sys.stdout.write(json.dumps({'text': json.dumps(found)}))
"""


def test_the_process_of_a_template_inherits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "probe.py"
    script.write_text(PROBE)
    monkeypatch.setattr(chat, "SCRIPT", script)
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        found = json.loads(prompt("x"))
    assert set(found["environment"]) <= {"TZ", "LD_LIBRARY_PATH", "LC_CTYPE"}
    assert (found["folder"], found["flags"]) == ("/", [1, 1])
    assert not [entry for entry in found["path"] if entry.startswith(str(tmp_path))]
    assert not [name for name in found["files"] if "open" in name]
    assert [name.partition(":")[2][:6] for name in found["files"][:2]] == ["unitp-", "unitp-"]


def test_the_process_of_a_template_has_limits_before_it_reads_it() -> None:
    import subprocess
    import sys

    from unitp.frontends import render

    told = (
        "import resource as r, runpy, sys; render = runpy.run_path(sys.argv[1]); render['limit_all'](2, 2**29, 2**25);"
        "print([r.getrlimit(k) for k in (r.RLIMIT_CPU, r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_CORE, r.RLIMIT_NPROC)])"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", told, render.__file__], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str([(2, 3), (2**29, 2**29), (2**25, 2**25), (0, 0), (0, 0)])


def test_a_process_that_breaks_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "broken.py"
    monkeypatch.setattr(chat, "SCRIPT", script)
    for text, message in (
        ("import no_such_module", "ended with exit code 1, ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os; os.kill(os.getpid(), 11)", "ended by Segmentation fault"),
        ("print('{')", "ended with exit code 0"),
        ("print('{\"text\": 3}')", "ended with exit code 0"),
    ):
        script.write_text(text)
        with pytest.raises(ModelError, match=re.escape(f"the chat template of chatty failed: its process {message}")):
            prompt("x")
    monkeypatch.setattr("sys.executable", "")
    with pytest.raises(HostError, match="does not know its Python interpreter"):
        prompt("x")


def test_nothing_is_left_of_the_process_of_a_template() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    prompt("x")
    with pytest.raises(ModelError):
        prompt("{{ 'x' * 4000000000 }}")
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InputError, match="a message of the chat is not Unicode"):
        prompt("x", messages=[Message("user", "\udcff")])
    with pytest.raises(ModelError, match="UnicodeEncodeError"):
        prompt(r"{{ '\ud800' }}")


def test_a_folder_cannot_lend_modules_to_a_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "resource", "datetime", "markupsafe", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    assert prompt("{{ messages[0].content }}") == "Be brief."
    assert not (tmp_path / "ran").exists()
