"""The driver's handle on the process that outlives it, and ends its session then (`unitp.ranks.leftovers`).

It is started before the ranks, in a session of its own, where signals to the driver's group do not reach it. It does not
carry the session's mark, so that ending the session does not end it; the driver dismisses it last.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from unitp.ranks.environment import FOLDER, KEPT, ROLE, chosen
from unitp.ranks.leftovers import Leftovers
from unitp.ranks.member import Member

NAME = "supervisor"
PACKAGES = str(Path(__file__).parents[2])
CODE = "import sys; sys.path.append(sys.argv.pop(1)); from unitp.ranks.leftovers import outlive; outlive()"


class Supervisor:
    """Runs from here on until `dismiss`. `python` needs nothing but its standard library. Raises OSError where it cannot be
    started.
    """

    def __init__(self, python: str, leftovers: Leftovers) -> None:
        environment = chosen(os.environ, KEPT) | {ROLE: NAME, FOLDER: leftovers.folder}
        log = Path(leftovers.folder) / f"{NAME}.log"
        driver = os.pidfd_open(os.getpid())
        pipe, self._lifeline = os.pipe()
        try:
            with open(log, "ab") as words:
                process = subprocess.Popen(
                    [python, "-I", "-S", "-c", CODE, PACKAGES, str(driver), *leftovers.words()],
                    env=environment,
                    cwd="/",
                    stdin=pipe,
                    stdout=words,
                    stderr=words,
                    pass_fds=(driver,),
                    start_new_session=True,
                )
        except BaseException:
            self.let_go()
            raise
        finally:
            os.close(driver)
            os.close(pipe)
        self.member = Member(NAME, NAME, process, [log], ())

    def dismiss(self) -> None:
        """End it; nothing of the session is left that it would have to see to."""
        self.member.process.kill()
        self.member.reap()

    def let_go(self) -> None:
        """Close this process's end of the pipe: for the supervisor the driver is gone, unless a fork holds its copy."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
