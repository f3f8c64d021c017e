"""One exception tree. Every error a user can cause is a `UnitpError` that says what, where, seen and wanted, how to mend it.

The command line prints only the message, without a traceback, and exits with `exit_code`: 2 for bad input (nothing was
started or is left behind), 3 for a fault at run time (a rank died, hangs or raised; the host lacks something).
Names in a message may come from untrusted files: invisible characters are escaped as in Python, whoever prints it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from traceback import walk_tb
from types import CodeType

from unitp.texts import shown


class UnitpError(Exception):
    """Base of all errors that unitp raises on purpose. `hint` says how to mend it, if that is known."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = _bounded(shown(_bounded(message), "\n\t"))
        self.hint = _bounded(shown(_bounded(hint), "\n\t"))
        super().__init__(f"{self.message}\n{self.hint}" if hint else self.message)

    def __reduce__(self) -> tuple[object, ...]:
        """Copies keep the hint and notes. An error that is raised several times is copied, or it would collect all tracebacks."""
        return _made, (type(self), self.message, self.hint), self.__dict__


def with_hint(error: UnitpError, hint: str) -> UnitpError:
    """Return the error with another hint, and the same notes."""
    made = type(error)(error.message, hint=hint)
    for note in getattr(error, "__notes__", ()):
        made.add_note(note)
    return made


LONGEST = 16_000
"""Characters of a message: a value of a stranger's file that is shown in it may have millions."""


def _bounded(text: str) -> str:
    """Return a text of about `LONGEST` characters at most: its beginning, and its end."""
    if len(text) <= LONGEST:
        return text
    first, last = text[: 3 * LONGEST // 4], text[-LONGEST // 4 :]
    return f"{first} ... ({len(text) - LONGEST} characters are left out) ... {last}"


def _made(kind: type[UnitpError], message: str, hint: str) -> UnitpError:
    return kind(message, hint=hint)


class ModelError(UnitpError):
    """A model cannot be found, read or understood: unknown name, corrupt file, unsupported config key."""


class GraphError(UnitpError):
    """A graph is not well formed: unknown operator, wrong rank or dtype, undefined value."""


class MeshError(UnitpError):
    """A mesh cannot be parsed or used: unknown axis, size below one, an axis without a legal use."""


class PlanError(UnitpError):
    """A plan cannot be made, read, or does not belong to this model."""


class ProgramError(UnitpError):
    """A program is not valid; the message names the instruction. A well-formed plan never leads here: report it."""


class BackendError(UnitpError):
    """A backend is unknown or broken, or its framework is not installed (then the hint is the command that installs it)."""


class InputError(UnitpError):
    """An argument, input array, setting or prompt is wrong."""


class RankError(UnitpError):
    """A rank (or server, scheduler, launcher) died, hangs, or raised while a session was running."""

    exit_code = 3


def from_signal(error: BaseException) -> bool:
    """Say whether a signal handler of this process raised `error` (a user's time limit), and not the code that it interrupted.

    It is for the few places that call foreign code, which may raise anything.
    """
    handlers = {_code(signal.getsignal(number)) for number in signal.valid_signals()}
    return any(frame.f_code in handlers for frame, _ in walk_tb(error.__traceback__))


def _code(handler: object) -> CodeType | None:
    """Return the code object of a function, method, partial or callable object, or None if it is not Python's."""
    while isinstance(handler, partial):
        handler = handler.func
    for found in (handler, getattr(handler, "__func__", None), vars(type(handler)).get("__call__")):
        if isinstance(code := getattr(found, "__code__", None), CodeType):
            return code
    return None


class HostError(UnitpError):
    """The host refused something: a disk is full, a folder cannot be written, there are no more file descriptors."""

    exit_code = 3


class UnitpWarning(UserWarning):
    """What users should know, although it is not an error."""


class BackendWarning(UnitpWarning):
    """A backend works, but slower than it could. The message says why, and what to do."""


class IsolationWarning(UnitpWarning):
    """A session is not isolated. The message says why, and what can be reached from outside."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt `name`: the nearest known name, or the list of all."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f'Did you mean "{near[0]}"?'
    return f"Known: {', '.join(names)}." if names else ""
