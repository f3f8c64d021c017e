"""`unitp chat`: several turns; what the caches hold of the conversation is not computed again."""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from unitp.cli.generate import sampling_options
from unitp.cli.options import Request, backend_option, model_argument, options, running_options
from unitp.cli.output import errors, print_json, progress


@click.command("chat")
@options(model_argument, backend_option, running_options)
@click.option("--system", help="The system message.")
@click.option("--max-new-tokens", type=int, default=256, show_default=True, help="For each answer.")
@sampling_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer.")
def command(
    model: str, backend: str | None, system: str | None, max_new_tokens: int, temperature: float, top_k: int, top_p: float,
    seed: int, as_json: bool, **running: Any,
) -> None:  # fmt: skip
    """Talk with a model over several turns. An empty line or end of input ends it."""
    from unitp.frontends.chat import Message, chat_prompt
    from unitp.runtime.sampling import Sampling
    from unitp.runtime.text import TextGeneration

    request = Request(model, backend=backend, **running)
    sampling = Sampling(temperature, top_k, top_p, seed)
    sampling.require()
    messages = [Message("system", system)] if system else []
    chat_prompt(request.model, [*messages, Message("user", "")])
    with progress(f"starting {request.plan.mesh.size} ranks of {request.value('backend')}"):
        session = request.launch()
    with session:
        while question := _question():
            messages.append(Message("user", question))
            ids = request.model.tokenizer.encode(chat_prompt(request.model, messages), bos=False)
            stream = TextGeneration(
                session.generation([ids], max_new_tokens, sampling=sampling, keep=True), request.model.tokenizer
            )
            for _, piece in stream:
                if not as_json:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
            answer = stream.results()[0]
            messages.append(Message("assistant", answer.text))
            print_json(answer) if as_json else sys.stdout.write("\n")


def _question() -> str:
    if sys.stdin.isatty():
        errors().print("[bold]you>[/bold] ", end="")
    return sys.stdin.readline().strip()
