"""`unitp generate`: continue one or several prompts, streaming."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from unitp.cli.options import Request, backend_option, json_option, model_argument, options, running_options
from unitp.cli.output import PROSE, print_json, progress, remark, say, say_generated
from unitp.errors import InputError

if TYPE_CHECKING:
    from unitp.frontends.model import Model

F = TypeVar("F", bound=Callable[..., Any])

sampling_options = options(
    click.option("--temperature", type=float, default=0.0, show_default=True, help="0: the likeliest token."),
    click.option("--top-k", type=int, default=0, show_default=True, help="Draw among the K likeliest (0: all)."),
    click.option("--top-p", type=float, default=1.0, show_default=True, help="Draw among the likeliest that sum to P."),
    click.option("--seed", type=int, default=0, show_default=True, help="What is drawn depends on it alone."),
)


def tokens_option(default: int, what: str = "") -> Callable[[F], F]:
    return click.option(
        "--max-new-tokens",
        type=click.IntRange(min=0),
        default=default,
        show_default=True,
        metavar="N",
        help=f"Stop after so many tokens{what}.",
    )


@click.command("generate")
@options(model_argument, backend_option)
@click.option(
    "--prompt", "prompts", multiple=True, metavar="TEXT", help="Text to continue; give it several times for a batch."
)
@click.option(
    "--prompt-ids", "prompt_ids", multiple=True, metavar="IDS", help="Token ids instead of text, as in 504,3575,282."
)
@tokens_option(32)
@click.option("--chat", is_flag=True, help="The prompt is a message, put into the model's chat template.")
@click.option("--system", metavar="TEXT", help="The system message of --chat.")
@sampling_options
@click.option("--stop", multiple=True, metavar="TEXT", help="Text at which to stop; it is not shown.")
@click.option("--ignore-eos", is_flag=True, help="Go on after the model's stop token.")
@options(running_options, json_option)
def command(
    model: str, backend: str | None, prompts: tuple[str, ...], prompt_ids: tuple[str, ...], max_new_tokens: int, chat: bool,
    system: str | None, temperature: float, top_k: int, top_p: float, seed: int, stop: tuple[str, ...], ignore_eos: bool,
    as_json: bool, **running: Any,
) -> None:  # fmt: skip
    """Continue a prompt, streaming.

    MODEL is a known name, a .gguf file, or a Hugging Face directory. The text ends at a stop token, after --max-new-tokens, or
    when prompt and new tokens fill the context.
    """
    import msgspec

    from unitp.engine.sampling import Sampling
    from unitp.session.text_stream import TextGeneration

    sampling = Sampling(temperature, top_k, top_p, seed)
    sampling.require()
    _require_sense(prompts, prompt_ids, chat, system)
    request = Request(model, backend=backend, **running)
    ids = [read_ids(text) for text in prompt_ids] or [encode(request.model, p, chat, system) for p in prompts]
    request.require_prompts(ids)
    speller = request.model.speller
    with progress() as tell:
        session = request.launch(tell, len(ids))
    with session:
        generation = session.generation(ids, max_new_tokens, sampling=sampling, ignore_eos=ignore_eos)
        stream = TextGeneration(generation, speller, stop)
        alone = len(ids) == 1 and not as_json
        for _, piece in stream:
            if alone:
                say_generated(piece)
        results = stream.results()
    if as_json:
        found = [msgspec.to_builtins(r) for r in results]
        print_json(found[0] if len(found) == 1 else {"results": found})
        return
    if alone:
        say_generated("\n")
    else:
        for prompt, result in zip(prompts or prompt_ids, results, strict=True):
            say((f"> {prompt}", "bold"), keep=PROSE)
            say_generated(f"{result.text}\n")
    first, made = results[0], sum(len(r.tokens) for r in results)
    remark(
        f"{made} tokens ({first.finish_reason}), prefill {first.prefill_tokens_per_s:.0f}, "
        f"decode {first.decode_tokens_per_s:.1f} tokens/s"
    )


def _require_sense(prompts: tuple[str, ...], ids: tuple[str, ...], chat: bool, system: str | None) -> None:
    """Raise InputError for flags of which one would be silently ignored."""
    if prompts and ids:
        raise InputError("--prompt and --prompt-ids are both given", hint="Give one of them.")
    if chat and ids:
        raise InputError("--chat puts text into a template, and --prompt-ids gives none", hint="Give --prompt.")
    if system and not chat:
        raise InputError("--system is a message of --chat", hint="Give --chat as well.")


def read_ids(text: str) -> list[int]:
    """The token ids in a text like `504,3575,282`. Raises InputError for any other text."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f'cannot read token ids "{text}"', hint="Write them as in 504,3575,282.") from None


def encode(model: Model, prompt: str, chat: bool, system: str | None) -> list[int]:
    """The token ids of a prompt, with the chat template if that is requested."""
    if not chat:
        return model.tokenizer.encode(prompt)
    from unitp.frontends.chat import Message, chat_prompt

    messages = [Message("system", system)] if system else []
    return model.tokenizer.encode(chat_prompt(model, [*messages, Message("user", prompt)]), bos=False)
