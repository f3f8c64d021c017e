"""`unitp compare`: one plan on several backends, one at a time. Which agree with the oracle, and how well?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import rich_click as click

from unitp.cli.generate import read_ids, tokens_option
from unitp.cli.options import Request, backends_option, json_option, model_argument, options, running_options
from unitp.cli.output import over, print_json, print_table, progress, say, table
from unitp.cli.run import read_inputs
from unitp.errors import InputError

if TYPE_CHECKING:
    from unitp.comparison.compare import Comparison


@click.command("compare")
@options(model_argument, backends_option)
@click.option(
    "--prompt", "prompts", multiple=True, metavar="TEXT", help="Text to continue; give it several times for a batch."
)
@click.option(
    "--prompt-ids", "prompt_ids", multiple=True, metavar="IDS", help="Token ids instead of text, as in 504,3575,282."
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FILE.npy",
    help="An array, for a graph that is not a language model.",
)
@tokens_option(32)
@options(running_options, json_option)
def command(
    model: str, backends: tuple[str, ...], prompts: tuple[str, ...], prompt_ids: tuple[str, ...], inputs: tuple[str, ...],
    max_new_tokens: int, as_json: bool, **running: Any,
) -> None:  # fmt: skip
    """Run one plan on several backends, and see which agree with NumPy float64 on one rank, and how well.

    The backends run one after another, to save memory. Exit code 1 if one disagrees.
    """
    from unitp.comparison.compare import as_json as plain
    from unitp.comparison.compare import compare

    if prompts and prompt_ids:
        raise InputError("--prompt and --prompt-ids are both given", hint="Give one of them.")
    request = Request(model, **running)
    arrays, ids = None, None
    if request.model.decoder is None:
        arrays = read_inputs(inputs, None)
        request.require_inputs(arrays)
    elif inputs:
        raise InputError(f"{request.model.name} is a language model", hint="Give --prompt or --prompt-ids.")
    else:
        ids = [read_ids(text) for text in prompt_ids] or [request.model.tokenizer.encode(text) for text in prompts]
        request.require_prompts(ids)
    with progress() as tell:
        found = compare(
            request.model,
            request.plan,
            tuple(dict.fromkeys(backends)) or (request.backend,),
            prompt_ids=ids,
            inputs=arrays,
            dtype=request.dtype,
            max_new_tokens=max_new_tokens,
            context=request.context,
            say=tell,
            launch_options=request.settings.launch_options,
        )
    if as_json:
        print_json(plain(found))
    else:
        print_comparison(found)
    sys.exit(0 if found.agree else 1)


def print_comparison(found: Comparison) -> None:
    """Print the table: backend, transport, verdict, tokens, error, speed, share of time in collectives."""
    rows = table(
        "backend", "transport", "verdict", "tokens", ">error", ">allowed", ">prefill/s", ">decode/s", ">in collectives"
    )
    for name, v in found.backends.items():
        color = "green" if v.verdict == "agrees" else "red"
        tokens = "equal" if v.tokens_equal else "close call" if v.close_calls else "differ"
        rows.add(
            name,
            over(v.transport, v.runtime),
            (v.verdict, color),
            tokens,
            f"{v.relative_error:.1e}",
            f"{v.bound:.1e}",
            f"{v.prefill_tokens_per_s:.0f}",
            f"{v.decode_tokens_per_s:.1f}",
            f"{v.collective_share:.0%}",
        )
    say(f"{found.model} on {found.mesh}, {found.dtype}, against NumPy float64 on one rank")
    print_table(rows)
    for name, v in found.backends.items():
        for reason in v.reasons:
            say(f"{name}: {reason}")
