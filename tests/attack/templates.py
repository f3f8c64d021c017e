"""Chat templates and messages as a stranger writes them.

Real templates with characters and pieces changed, ways out of the sandbox, loops, bombs of memory and of output, odd uses of what
transformers gives to templates; messages of any text. Templates whose output can be said without jinja2 must give it,
with the very messages of the input, in which syntax is text.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chats import TEMPLATES
from hostile import EVERYTHING, NAMES

from unitp.frontends.chat import Message, chat_prompt
from unitp.frontends.model import Decoder, Model
from unitp.testing.models import tiny

NAME = "templates"


@dataclass(frozen=True)
class Input:
    """`wanted`: the prompt, where it can be said beforehand."""

    kind: str
    template: str
    messages: tuple[tuple[str, str], ...]
    canary: Path
    wanted: str | None = None

    @property
    def harmless(self) -> bool:
        return self.wanted is not None and not any("\ud800" <= c <= "\udfff" for c in self.wanted)


ESCAPES = (
    "''.__class__.__mro__[1].__subclasses__()",
    "messages.__class__.__base__.__subclasses__()[PICK].__init__.__globals__",
    "raise_exception.__globals__['__builtins__']['open']('CANARY', 'w')",
    "strftime_now.__code__",
    "cycler.__init__.__globals__.os.system('touch CANARY')",
    "joiner.__init__.__globals__['os'].popen('touch CANARY').read()",
    "lipsum.__globals__.os.system('touch CANARY')",
    "namespace.__init__.__globals__",
    "dict.fromkeys.__func__.__globals__",
    "self._TemplateReference__context.environment",
    "self.__init__.__globals__.__builtins__.__import__('os').system('touch CANARY')",
    "''|attr('__class__')|attr('__mro__')",
    "'{0.__class__.__init__.__globals__}'.format(namespace)",
    "'{a.__class__}'.format_map({'a': messages})",
    "messages|map(attribute='__class__')|list",
    "(messages|map('attr', 'append')|first)(1)",
    "loop.__class__",
    "caller.__globals__",
    "varargs.__class__",
    "messages.append(1)",
    "messages[0].update(role='x')",
    "environment",
    "undefined.__class__.__init__.__globals__",
    "range.__init__.__globals__",
    "[]|groupby('__class__')",
    "url_for.__globals__",
)

BOMBS = (
    "{{ 'x' * NUMBER }}",
    "{{ [0] * NUMBER }}",
    "{{ 'x'.ljust(NUMBER) }}",
    "{{ 'x'|center(NUMBER)|length }}",
    "{{ '%NUMBERd' % 1 }}",
    "{{ '{:>NUMBER}'.format(1) }}",
    "{{ messages|tojson(indent=NUMBER) }}",
    "{{ 'a\nb'|indent(NUMBER) }}",
    "{{ 'abc'|batch(NUMBER, 'x')|list|length }}",
    "{{ 'abc'|slice(NUMBER)|list|length }}",
    "{{ lipsum(n=NUMBER) }}",
    "{{ lipsum(min=NUMBER, max=NUMBER) }}",
    "{{ range(NUMBER)|sum }}",
    "{{ 'ab'.replace('', 'x' * (NUMBER // 3)) }}",
    "{{ NUMBER ** NUMBER }}",
    "{{ 2 ** NUMBER }}",
    "{{ 1 / NUMBER ** 99 }}",
    "{{ ('x' * (NUMBER % 999983)).split('x')|join(',') }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(NUMBER % 64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x|length }}",
    "{% set ns = namespace(x=[]) %}{% for i in range(NUMBER % 64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% for a in range(NUMBER % 99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(NUMBER % 40) }}",
    "{% for x in [[[]]] recursive %}{{ loop([x]) }}{% endfor %}",
    "{{ (('a' * 30) + '!')|wordwrap(1, true, 'x' * (NUMBER // 64)) }}",
    "{{ messages|string * NUMBER }}",
)

DEEP = (
    ("{{ ", "(", "1", ")", " }}"),
    ("{{ ", "[", "1", "]", " }}"),
    ("{{ ", "not ", "1", "", " }}"),
    ("{{ ", "-", "1", "", " }}"),
    ("{{ x", "|upper", "", "", " }}"),
    ("{{ 1", " + 1", "", "", " }}"),
    ("{{ messages", "[0]", "", "", " }}"),
    ("", "{% if 1 %}", "x", "{% endif %}", ""),
    ("", "{% for i in [1] %}", "x", "{% endfor %}", ""),
    ("", "{% generation %}", "x", "{% endgeneration %}", ""),
    ("", "{% call raise_exception() %}", "x", "{% endcall %}", ""),
    ("", "{% filter upper %}", "x", "{% endfilter %}", ""),
)

ODD = (
    "{{ raise_exception() }}",
    "{{ raise_exception(1, 2) }}",
    "{{ raise_exception(messages) }}",
    "{{ raise_exception('x' * 9999999) }}",
    "{{ raise_exception(nothing) }}",
    "{{ strftime_now('%' * 99999) }}",
    "{{ strftime_now('\\0') }}",
    "{{ strftime_now('\\ud800') }}",
    "{{ strftime_now(messages) }}",
    "{{ '\\ud800' }}",
    "{{ '\\udcff' * 99 }}",
    "{{ messages|tojson(sort_keys=messages) }}",
    "{{ {1: 2, 'a': 3}|tojson(sort_keys=true) }}",
    "{{ namespace|tojson }}",
    "{% set ns = namespace(a=1) %}{{ ns|tojson }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ namespace(**{'__init__': 1}) }}",
    "{{ dict(1) }}",
    "{{ dict.fromkeys(1) }}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% generation x %}{% endgeneration %}",
    "{% break %}",
    "{% continue %}",
    "{% for i in messages %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "{% include 'CANARY' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{% block x %}{% endblock %}{{ self.x() }}",
    "{% do messages.append(1) %}",
    "{% trans %}x{% endtrans %}",
    "{% debug %}",
    "{% autoescape true %}<{% endautoescape %}",
    "{% raw %}{{ }}{% endraw %}",
    "{% set messages = 1 %}{{ messages.x.y }}",
    "{% set x %}{{ x }}{% endset %}{{ x }}",
    "{# {{ #}",
    "{{ 1e999 }} {{ -1e999 }} {{ 1e999 - 1e999 }}",
    "{{ 1 // 0 }}",
    "{{ messages[99999999999999999999] }}",
    "{{ messages|sort }}",
    "{{ messages|random }}",
    "{{ ''|first }}",
    "{{ messages|sum }}",
    "{{ '%s%s' % 'a' }}",
    "{{ '%(x)s' % messages }}",
    "{{ '%n' % 1 }}",
    "\x00{{ 1 }}\x00",
    "{{ '\\N{nothing}' }}",
    "{{ a.b.c }}",
    "{{ loop.index }}",
    "{{ caller() }}",
    "{{ super() }}",
    "{% if %}",
    "{{ }}",
    "{%",
    "{{",
    "{#",
    "%}",
    "{% endfor %}",
    "{% for %}",
    "{% for x in 1 %}{% endfor %}",
    "{% unknown %}",
    "{{ x|unknown }}",
    "{{ x is unknown }}",
)

PLAIN: tuple[tuple[str, Callable[[str, str], str], str], ...] = (
    ("{% for m in messages %}<{{ m.role }}>{{ m['content'] }}{% endfor %}", lambda role, words: f"<{role}>{words}", ""),
    ("{%- for m in messages -%}\n{{ m.content }}|\n{%- endfor -%}", lambda role, words: f"{words}|", ""),
    (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %};{% endfor %}END",
        lambda role, words: f"{words};",
        "END",
    ),
)
"""Templates, what each makes of a message, and what follows the last."""


def one(rng: random.Random, folder: Path) -> Input:
    canary = folder / "canary"
    kind = rng.choices(
        ("plain", "mutated", "escape", "bomb", "deep", "odd", "noise"), (20, 30, 12, 8, 6, 16, 8)
    )[0]  # fmt: skip
    given = messages(rng)
    if kind == "plain":
        template, said, end = rng.choice(PLAIN)
        return Input(kind, template, given, canary, "".join(said(*message) for message in given) + end)
    template = {"mutated": mutated, "escape": escape, "bomb": bomb, "deep": deep, "odd": odd, "noise": noise}[kind](rng)
    return Input(kind, template.replace("CANARY", str(canary)), given, canary)


def messages(rng: random.Random) -> tuple[tuple[str, str], ...]:
    return tuple((role(rng), content(rng)) for _ in range(rng.choice((0, 1, 1, 2, 3, 5, 40))))


def role(rng: random.Random) -> str:
    return rng.choice(("system", "user", "user", "assistant", "tool", "", "__class__", "r" * 999))


def content(rng: random.Random) -> str:
    return rng.choice(
        (*WORDS, "x" * rng.choice((10, 9999, 999_999)), "".join(chr(rng.randrange(1, 0xD800)) for _ in range(50)))
    )


WORDS = (
    *("Hello", "", "  \n", "\ud800", "</think>a</think>b", "<tool_response>x</tool_response>"),
    *("{{ messages.__class__ }}", "{% raw %}", "{# x", EVERYTHING, *NAMES.values()),
)


def number(rng: random.Random) -> str:
    return str(rng.choice((0, -1, 7, 64, 10**4, 10**6, 4 * 10**7, 10**9, 4 * 10**9, 2**63, 2**64, 10**30)))


def mutated(rng: random.Random) -> str:
    """A real template with characters, pieces or whole lines changed."""
    text = rng.choice(list(TEMPLATES.values()))
    for _ in range(rng.randrange(1, 6)):
        at, more = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        cut = rng.choice((rng.choice(string.printable), rng.choice(ODD), rng.choice(BRACKETS)))
        old, new = rng.choice(OLD), rng.choice(("ns", "1", "none", "[]", "''", "*"))
        text = rng.choice(
            (
                text[:at] + text[at + 1 :],
                text[:at] + cut + text[at:],
                text[:at],
                text[:at] + text[more:],
                text[:more] + text[at:],
                text[:at] + text[at:more][::-1] + text[more:],
                text.replace(old, new),
            )
        )
    return text


BRACKETS = ("%}", "{%", "}}", "{{", "'", '"', "(", ")", "-%}", "{%-", "\\")
OLD = ("messages", "content", "role", "loop", "tools", "+", "==", "0")


def escape(rng: random.Random) -> str:
    words = rng.choice(ESCAPES).replace("PICK", str(rng.randrange(500)))
    return rng.choice(AROUND).replace("WORDS", words)


AROUND = (
    "{{ WORDS }}",
    "{% set x = WORDS %}{{ x }}",
    "{% if WORDS %}x{% endif %}",
    "{% for x in WORDS %}{{ x }}{% endfor %}",
    "{% for m in messages %}{{ (WORDS)|string }}{% endfor %}",
    "{{ [WORDS]|tojson }}",
    "{{ raise_exception(WORDS) }}",
)


def bomb(rng: random.Random) -> str:
    return rng.choice(BOMBS).replace("NUMBER", number(rng))


def deep(rng: random.Random) -> str:
    begin, opens, core, closes, end = rng.choice(DEEP)
    depth = rng.choice((10, 90, 300, 1000, 5000, 20000))
    return f"{begin}{opens * depth}{core}{closes * depth}{end}"


def odd(rng: random.Random) -> str:
    return "".join(rng.choice(ODD) for _ in range(rng.choice((1, 1, 1, 2, 3))))


def noise(rng: random.Random) -> str:
    pool = "{}%#-+*/|()[]'\"\\ .,:=<>!~\n\0\x1béx1_" + string.ascii_lowercase
    return "".join(rng.choice(pool) for _ in range(rng.choice((5, 50, 500)))) + rng.choice(("", "{{", "{%", "}}"))


def feed(given: Input) -> bool:
    """Render the template; returns whether that was checked to be right. Raises UnitpError where it is refused."""
    decoder = Decoder(64, 97, (), chat_template=given.template or " ", bos_token="<s>", eos_token="</s>")
    model = Model("hostile", _GRAPH, decoder)
    try:
        found = chat_prompt(model, [Message(role, content) for role, content in given.messages])
    finally:
        assert not given.canary.exists(), "a template left its sandbox"
    assert isinstance(found, str)
    assert given.wanted is None or found == given.wanted, (found, given.wanted)
    return given.wanted is not None


_GRAPH = tiny().graph
