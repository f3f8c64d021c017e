"""The command line. Each verb is a file of its own, imported when it is called, so that `--help` is quick."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

import rich_click as click
from click.exceptions import Abort, Exit

from unitp.cli.streams import standard_streams
from unitp.errors import InputError, UnitpError, UnitpWarning, did_you_mean
from unitp.host import host_error
from unitp.texts import shown

VERBS = {
    "doctor": "Show what is installed, what is missing, and the command that mends it.",
    "plugins": "List what is built in and what plug-ins add.",
    "models": "List models known by name, and whether they are installed.",
    "machines": "Show the machines that plans can be made for.",
    "plan": "Decide how a model is split over a mesh.",
    "show": "Show what a plan splits, over which ranks, what moves, and predicted costs.",
    "explain": "Show the alternatives at a place of a plan, and what they would cost in total.",
    "diff": "Show what differs between two plans.",
    "program": "Print the instructions of a rank.",
    "export": "Write a plan as ONNX annotations, DTensor placements or a transformers tp_plan.",
    "generate": "Continue a prompt, streaming.",
    "chat": "Talk with a model over several turns.",
    "run": "Run a graph on arrays from files.",
    "compare": "Run one plan on several backends, and see which agree, and how well.",
    "calibrate": "Measure this host with a backend, for plans and predictions.",
    "bench": "Measure speed, time in collectives, and memory of a backend.",
    "trace": "Record what ranks do when, beside the prediction, for Perfetto.",
    "config": "Show every setting and where it comes from.",
    "demo": "Run SmolLM2 on 2 ranks of every backend, and see which agree.",
}

INTERRUPTED = 130


class Verbs(click.RichGroup):
    """A group whose commands are modules. Listing them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of a verb, or only its name and first line for a list of verbs."""
        if name not in VERBS:
            return None
        if ctx.resilient_parsing or ctx.meta.get("unitp.verb") == name:
            command: click.Command = importlib.import_module(f"unitp.cli.{name}").command
            return command
        return click.Command(name, help=VERBS[name], short_help=VERBS[name])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the name and the command of the verb that is called, and its arguments.

        Raises InputError for an unknown verb.
        """
        if args[0] not in VERBS and not ctx.resilient_parsing:
            raise InputError(f'unknown verb "{args[0]}"', hint=did_you_mean(args[0], VERBS))
        ctx.meta["unitp.verb"] = args[0]
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unitp")
def group() -> None:
    """Plan tensor parallelism once, run it on any framework, prove that the results agree."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console script. Errors of unitp become a message and an exit code, never a traceback."""
    with standard_streams(), warnings.catch_warnings():
        warnings.showwarning = show_warning
        code = call(arguments)
    if code:
        sys.exit(code)


def call(arguments: Sequence[str] | None) -> int:
    """Run a verb and write all of its results. Returns the exit code."""
    try:
        code = _returned(arguments)
        sys.stdout.flush()
        return code
    except UnitpError as error:
        return fail(error)
    except click.ClickException as error:
        vars(error)["message"] = shown(error.message, "\n")  # click declares it final
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, Abort):
        return INTERRUPTED
    except BrokenPipeError:  # whoever read standard output has seen enough; click leaves with 1 where it notices
        return 1
    except OSError as error:
        return fail(host_error(error))


def _returned(arguments: Sequence[str] | None) -> int:
    try:
        group(arguments, prog_name="unitp", standalone_mode=False)
    except Exit as end:
        return int(end.exit_code)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning. Those of unitp are for the user, others for whoever can mend their cause."""
    from unitp.cli.output import remark

    own = issubclass(category, UnitpWarning)
    text = str(message) if own else warnings.formatwarning(message, category, filename, lineno, line).rstrip()
    remark(text, keep="\n\t")


def fail(error: UnitpError) -> int:
    """Print what is wrong and how to mend it. Returns the exit code."""
    from unitp.cli.output import remark

    remark(("Error:", "bold red"), f" {error.message}", keep="\n\t")
    if error.hint:
        remark(error.hint, keep="\n\t")
    return error.exit_code
