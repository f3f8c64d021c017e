"""`unitp compare`: one plan on several backends, one at a time: who agrees with the oracle, and how well."""

from __future__ import annotations

import sys
from typing import Any

import rich_click as click

from unitp.cli.generate import read_ids
from unitp.cli.options import Request, complete_backend, json_option, model_argument, options, running_options
from unitp.cli.output import console, print_json, progress, table
from unitp.cli.run import read_inputs
from unitp.comparison.compare import Comparison, compare
from unitp.comparison.compare import as_json as plain


@click.command("compare")
@options(model_argument, running_options)
@click.option(
    "--backend", "backends", multiple=True, shell_complete=complete_backend, help="Give it once for each backend."
)
@click.option("--prompt", "prompts", multiple=True, help="Text to continue.")
@click.option("--prompt-ids", multiple=True, metavar="IDS", help="Token ids instead of text.")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="An array, for a graph that is no language model."
)
@click.option("--max-new-tokens", type=int, default=32, show_default=True)
@json_option
def command(
    model: str, backends: tuple[str, ...], prompts: tuple[str, ...], prompt_ids: tuple[str, ...], inputs: tuple[str, ...],
    max_new_tokens: int, as_json: bool, **running: Any,
) -> None:  # fmt: skip
    """One plan on several backends: who agrees with NumPy float64 on one rank, and how well.

    Exit code 1 where one disagrees.
    """
    request = Request(model, **running)
    with progress("comparing") as say:
        found = compare(
            request.model,
            request.plan,
            backends or (str(request.value("backend")),),
            prompt=list(prompts) or None,
            prompt_ids=[read_ids(text) for text in prompt_ids] or None,
            inputs=read_inputs(inputs, None) or None,
            dtype=str(request.value("dtype")),
            max_new_tokens=max_new_tokens,
            context=int(request.value("context")) or None,
            say=say,
        )
    if as_json:
        print_json(plain(found))
    else:
        print_comparison(found)
    sys.exit(0 if found.agree else 1)


def print_comparison(found: Comparison) -> None:
    """The table: backend, runtime, verdict, tokens, error, speed, share of time in collectives."""
    rows = table(
        "backend", "runtime", "verdict", "tokens", ">error", ">allowed", ">prefill/s", ">decode/s", ">in collectives"
    )
    for name, v in found.backends.items():
        color = "green" if v.verdict == "agrees" else "red"
        tokens = "equal" if v.tokens_equal else "close call" if v.close_calls else "differ"
        rows.add_row(
            name,
            v.runtime,
            f"[{color}]{v.verdict}[/{color}]",
            tokens,
            f"{v.relative_error:.1e}",
            f"{v.bound:.1e}",
            f"{v.prefill_tokens_per_s:.0f}",
            f"{v.decode_tokens_per_s:.1f}",
            f"{v.collective_share:.0%}",
        )
    console().print(f"{found.model} on {found.mesh}, {found.dtype}, against NumPy float64 on one rank", highlight=False)
    console().print(rows)
    for name, v in found.backends.items():
        for reason in v.reasons:
            console().print(f"{name}: {reason}", highlight=False)
