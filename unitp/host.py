"""Errors of the operating system in words: the number of the error, the path, and how to mend it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from unitp.errors import HostError, InputError, UnitpError

REMEDIES = {
    errno.ENOSPC: "The disk is full: free some of it, or write elsewhere (TMPDIR names the folder of sessions).",
    errno.EDQUOT: "The quota of the disk is used up: free some of it, or write elsewhere (TMPDIR names the folder of sessions).",
    errno.EFBIG: "A file may not be so large: raise the limit (ulimit -f), or write elsewhere.",
    errno.EMFILE: "Too many files are open in one process: raise the limit (ulimit -n), or close some.",
    errno.ENFILE: "Too many files are open on this host: end what is not needed, or raise fs.file-max.",
    errno.ENOMEM: "There is no memory left: end what is not needed, or use a smaller model or more ranks.",
    errno.EAGAIN: "No more processes or threads can be started: raise the limit (ulimit -u), or end some.",
    errno.EBADF: "It is closed: give it somewhere to go, as in > /dev/null.",
}
SHORTAGES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
MISTAKES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS)


def remedy(text: str) -> str:
    """Return how to mend the shortage that a library reports in `text`, or an empty text."""
    return next((REMEDIES[number] for number in SHORTAGES if os.strerror(number) in text), "")


def host_error(error: OSError, name: str = "") -> HostError:
    """Return a HostError for an error of the operating system. It has the error's number, the file (or `name`) and how to mend it."""
    known = errno.errorcode.get(error.errno or 0)
    about = f"{error.strerror} ({known})" if known else str(error)
    where = str(error.filename or name) if known else name
    return HostError(f"{where}: {about}" if where else about, hint=REMEDIES.get(error.errno or 0, ""))


@contextmanager
def at_host(name: str | os.PathLike[str]) -> Iterator[None]:
    """Return a context in which errors of the operating system become a HostError about `name`.

    A TimeoutError of the caller's own, which has no number, passes through.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise host_error(error, str(name)) from error


@contextmanager
def writing(path: str | os.PathLike[str], what: str = "", mistake: type[UnitpError] = InputError) -> Iterator[None]:
    """Return a context in which `what` is written to `path`.

    Raises `mistake` for a path that cannot be written, HostError if the host lacks something.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if error.errno in MISTAKES:
            raise mistake(f"cannot write {f'{what} ' if what else ''}{os.fspath(path)}: {error.strerror}") from None
        raise host_error(error, os.fspath(path)) from error
