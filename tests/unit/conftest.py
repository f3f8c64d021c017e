"""The command line without ranks: `unitp ARGUMENTS` in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unitp import cli


class Said:
    """What `unitp ARGUMENTS` left with and printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        """Standard output as the one JSON value that it is."""
        assert self.code in (0, 1), self.err
        return json.loads(self.out)


class Command:
    """`unitp`, called in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self.capture = capture

    def __call__(self, *arguments: object) -> Said:
        code = 0
        try:
            cli.main([str(a) for a in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *self.capture.readouterr())


@pytest.fixture
def unitp(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return Command(capsys)
