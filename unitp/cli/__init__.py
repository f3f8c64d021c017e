"""The command line. Each verb is a file of its own and is imported when it is called, so that `--help` is quick."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import rich_click as click
from click.exceptions import Abort, Exit

from unitp.errors import UnitpError

VERBS = {
    "doctor": "What is installed, what is missing, and the command that mends it.",
    "models": "Models known by name, and whether they are installed.",
    "plan": "Decide how a model is split over a mesh.",
    "show": "What a plan splits, over which ranks, what moves, and predicted costs.",
    "program": "The instructions of a rank, as text.",
    "generate": "Continue a prompt, streaming.",
    "chat": "Talk with a model over several turns.",
    "run": "Run a graph on arrays from files.",
    "compare": "One plan on several backends: who agrees, and how well.",
    "bench": "Speed, time in collectives, and memory of a backend.",
    "config": "Every setting and where it comes from.",
    "demo": "SmolLM2 on 2 ranks of every backend, and who agrees.",
}


class Verbs(click.RichGroup):
    """A group whose commands are modules; listing them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        if ctx.resilient_parsing or _asks_for_verb(ctx, name):
            module = importlib.import_module(f"unitp.cli.{name}")
            command: click.Command = getattr(module, "command")  # noqa: B009  (every verb's module has one)
            return command
        return click.Command(name, help=VERBS[name], short_help=VERBS[name])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        ctx.meta["unitp.verb"] = args[0] if args else ""
        return super().resolve_command(ctx, args)


def _asks_for_verb(ctx: click.Context, name: str) -> bool:
    return ctx.meta.get("unitp.verb") == name


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unitp")
def group() -> None:
    """Plan tensor parallelism once, run it on any framework, prove that the results agree."""


def main() -> None:
    """The console script. Errors of unitp's own are a message and an exit code, never a traceback."""
    try:
        group(standalone_mode=False)
    except UnitpError as error:
        fail(f"{type(error).__name__}: {error.message}", error.hint, error.exit_code)
    except Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, Abort):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def fail(message: str, hint: str, code: int) -> None:
    from unitp.cli.output import errors

    errors().print(f"[red]error[/red] {message}", highlight=False, soft_wrap=True)
    if hint:
        errors().print(hint, highlight=False, soft_wrap=True)
    sys.exit(code)
