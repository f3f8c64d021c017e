"""The driver's handle on the process that outlives it and then ends its session (`unitp.ranks.leftovers`).

It is started before the ranks, in a session of its own, which signals to the driver's group do not reach. It does not
carry the session's mark, so ending the session does not end it. The driver dismisses it last.
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
    """The supervising process, which runs until `dismiss`. The interpreter `python` needs only its standard library.

    Raises OSError if it cannot be started.
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
        """End the process. By now nothing of the session is left for it to remove."""
        self.member.process.kill()
        self.member.reap()

    def let_go(self) -> None:
        """Close this process's end of the pipe. To the supervisor the driver is then gone, unless a fork holds a copy."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
