"""`unitp chat`: several turns of a conversation. What the caches still hold of it is not computed again."""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from unitp.cli.generate import sampling_options, tokens_option
from unitp.cli.options import Request, backend_option, json_option, model_argument, options, running_options
from unitp.cli.output import print_json, progress, say_generated


@click.command("chat")
@options(model_argument, backend_option)
@click.option("--system", metavar="TEXT", help="The system message.")
@tokens_option(256, " in each answer")
@sampling_options
@options(running_options, json_option)
def command(
    model: str, backend: str | None, system: str | None, max_new_tokens: int, temperature: float, top_k: int, top_p: float,
    seed: int, as_json: bool, **running: Any,
) -> None:  # fmt: skip
    """Talk with a model over several turns. An empty line or the end of input ends it.

    With --json, one object with all turns is printed at the end; `computed_tokens` says how many tokens of a turn's prompt
    were not in the caches yet.
    """
    import msgspec

    from unitp.engine.sampling import Sampling
    from unitp.frontends.chat import Message, chat_prompt
    from unitp.session.text_stream import TextGeneration

    sampling = Sampling(temperature, top_k, top_p, seed)
    sampling.require()
    request = Request(model, backend=backend, **running)
    messages = [Message("system", system)] if system else []
    tokenizer = request.model.tokenizer
    request.require_prompts([tokenizer.encode(chat_prompt(request.model, [*messages, Message("user", "")]), bos=False)])
    with progress() as tell:
        session = request.launch(tell)
    turns = []
    with session:
        while question := _question():
            messages.append(Message("user", question))
            ids = tokenizer.encode(chat_prompt(request.model, messages), bos=False)
            stream = TextGeneration(session.generation([ids], max_new_tokens, sampling=sampling, keep=True), tokenizer)
            for _, piece in stream:
                if not as_json:
                    say_generated(piece)
            answer = stream.results()[0]
            messages.append(Message("assistant", answer.text))
            computed = stream.generation.timing.prefill_tokens
            turns.append({"question": question, **msgspec.to_builtins(answer), "computed_tokens": computed})
            if not as_json:
                say_generated("\n")
    if as_json:
        print_json({"turns": turns})


def _question() -> str:
    """The next line of input; in a terminal, with a prompt and line editing."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return sys.stdin.readline().strip()
    import readline  # noqa: F401  (makes `input` edit lines)

    try:
        return input("you> ").strip()
    except EOFError:
        sys.stdout.write("\n")
        return ""
