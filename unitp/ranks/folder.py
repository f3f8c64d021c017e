"""The folder of a session, and how much room there is where its processes map files.

The folder is private, and its path is short, because a socket's path has at most 107 bytes. TMPDIR names its parent.
Unlike Python's `tempfile`, an unusable TMPDIR is an error, and there is no silent alternative.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from unitp.errors import HostError
from unitp.host import host_error
from unitp.ranks.environment import FOLDER_PREFIX

NAMES = ("TMPDIR", "TEMP", "TMP")
SHORT_ROOTS = ("/tmp", "/var/tmp")
LONGEST = 107 - len("/driver.sock")
SHARED_MEMORY = Path("/dev/shm")


def new_folder() -> Path:
    """A new, empty folder in TMPDIR (in /tmp if that path is too long for a socket) that only this user can enter.

    Raises HostError if none can be made.
    """
    name = next((name for name in NAMES if os.environ.get(name)), "")
    wanted = os.path.abspath(os.environ[name] if name else tempfile.gettempdir())
    long = len(os.fsencode(wanted)) + len(f"/{FOLDER_PREFIX}12345678") > LONGEST
    refused = []
    for root in SHORT_ROOTS if long else (wanted,):
        try:
            return Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=root))
        except OSError as error:
            refused.append(host_error(OSError(error.errno, error.strerror), f"{root}{f' ({name})' if name else ''}"))
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
    raise HostError(
        f"no folder for a session can be made: {'; '.join(error.message for error in refused)}",
        hint=refused[-1].hint if full else "Let TMPDIR name a folder that can be written.",
    )


def room(folders: Sequence[Path]) -> str:
    """The free space in each of these folders, in words."""
    known = [folder for folder in folders if folder.is_dir()]
    return ", ".join(
        f"{folder} has {usage.free >> 20} MiB free of {usage.total >> 20}"
        for folder, usage in ((folder, shutil.disk_usage(folder)) for folder in known)
    )
