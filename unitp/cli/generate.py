"""`unitp generate`: continue one or several prompts, streaming."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import rich_click as click

from unitp.cli.options import Request, backend_option, json_option, model_argument, options, running_options
from unitp.cli.output import errors, print_json, progress
from unitp.errors import InputError
from unitp.frontends.model import Model

sampling_options = options(
    click.option("--temperature", type=float, default=0.0, show_default=True, help="0: the likeliest token."),
    click.option("--top-k", type=int, default=0, help="Draw among so many likeliest tokens (0: all)."),
    click.option("--top-p", type=float, default=1.0, help="Draw among the likeliest that sum to this probability."),
    click.option("--seed", type=int, default=0, show_default=True),
)


@click.command("generate")
@options(model_argument, backend_option, running_options)
@click.option("--prompt", "prompts", multiple=True, help="Text to continue; give it several times for a batch.")
@click.option(
    "--prompt-ids", "prompt_ids", multiple=True, metavar="IDS", help="Token ids instead of text, as in 504,3575,282."
)
@click.option("--max-new-tokens", type=int, default=32, show_default=True)
@click.option("--chat", is_flag=True, help="The prompt is a message, put into the model's chat template.")
@click.option("--system", help="The system message of --chat.")
@sampling_options
@click.option("--stop", multiple=True, help="Text at which to stop; not shown.")
@click.option("--ignore-eos", is_flag=True, help="Go on after the model's stop token.")
@json_option
def command(
    model: str, backend: str | None, prompts: tuple[str, ...], prompt_ids: tuple[str, ...], max_new_tokens: int, chat: bool,
    system: str | None, temperature: float, top_k: int, top_p: float, seed: int, stop: tuple[str, ...], ignore_eos: bool,
    as_json: bool, **running: Any,
) -> None:  # fmt: skip
    """Continue a prompt, streaming."""
    from unitp.runtime.sampling import Sampling
    from unitp.runtime.text import TextGeneration

    request = Request(model, backend=backend, **running)
    sampling = Sampling(temperature, top_k, top_p, seed)
    sampling.require()
    ids = [read_ids(text) for text in prompt_ids] or [encode(request.model, p, chat, system) for p in prompts]
    if not ids:
        raise InputError("no prompt is given", hint="Give --prompt or --prompt-ids.")
    with progress(f"starting {request.plan.mesh.size} ranks of {request.value('backend')}"):
        session = request.launch()
    with session:
        generation = session.generation(ids, max_new_tokens, sampling=sampling, ignore_eos=ignore_eos)
        stream = TextGeneration(generation, request.model.tokenizer, stop)
        alone = len(ids) == 1 and not as_json
        for _, piece in stream:
            if alone:
                sys.stdout.write(piece)
                sys.stdout.flush()
        results = stream.results()
    if as_json:
        found = [msgspec.to_builtins(r) for r in results]
        print_json(found[0] if len(found) == 1 else {"results": found})
        return
    sys.stdout.write("\n" if alone else "".join(f"{r.text}\n" for r in results))
    first = results[0]
    errors().print(
        f"{sum(len(r.tokens) for r in results)} tokens ({first.finish_reason}), prefill {first.prefill_tokens_per_s:.0f}, "
        f"decode {first.decode_tokens_per_s:.1f} tokens/s",
        highlight=False,
    )


def read_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f'cannot read token ids "{text}"', hint="Write them as in 504,3575,282.") from None


def encode(model: Model, prompt: str, chat: bool, system: str | None) -> list[int]:
    """A prompt as token ids, put into the chat template where that is asked for."""
    from unitp.frontends.chat import Message, chat_prompt

    if not chat:
        if system:
            raise InputError("--system is a message of --chat")
        return model.tokenizer.encode(prompt)
    messages = [Message("system", system)] if system else []
    return model.tokenizer.encode(chat_prompt(model, [*messages, Message("user", prompt)]), bos=False)
