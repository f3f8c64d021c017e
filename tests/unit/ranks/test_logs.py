"""What ranks print is forwarded with their names, and commands no terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hostile import EVERYTHING

from unitp.ranks.logs import Forwarder


def test_what_ranks_print_commands_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_bytes(f"{EVERYTHING}\n".encode())
    forwarder = Forwarder()
    forwarder.start({"rank0": tmp_path / "log"})
    forwarder.stop()
    printed = capsys.readouterr().err
    assert printed.startswith("[rank0] ")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", printed)
