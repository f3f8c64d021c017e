"""The command line in a terminal, and into a pipe that somebody closes."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]

UNITP = [sys.executable, "-m", "unitp"]


def test_a_reader_that_has_seen_enough_gets_no_complaint(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    subprocess.run([*UNITP, "plan", "smollm2-135m", "-o", file], capture_output=True, check=True)
    process = subprocess.Popen([*UNITP, "program", file], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"program of graph")
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def in_terminal(*arguments: str, **environment: str) -> str:
    """What a terminal of 80 columns shows."""
    screen, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(
        [*UNITP, *arguments],
        stdin=end,
        stdout=end,
        stderr=end,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    ) as process:
        os.close(end)
        shown = bytearray()
        while True:
            try:
                piece = os.read(screen, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
    os.close(screen)
    assert process.returncode == 0, shown
    return shown.decode()


def test_a_narrow_terminal_wraps_words_and_cuts_no_numbers(folder: str, tmp_path: Path) -> None:
    config = in_terminal("config", "show")
    assert "the model's own, at most 2048" in " ".join(config.split())
    assert max(len(line) for line in config.splitlines() if "\x1b" not in line) <= 80
    shown = in_terminal("compare", folder, "--prompt-ids", "5,17,3,88,41", "--max-new-tokens", "2", NO_COLOR="1")
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("numpy ")]
    assert row[:5] == ["numpy", "one", "process", "agrees", "equal"]
    assert row[-1] == "0%"
    assert "…" not in shown


def test_a_terminal_gets_a_spinner_and_colours_but_not_with_no_color(talking: str) -> None:
    arguments = ["generate", talking, "--prompt", "ab", "--max-new-tokens", "3"]
    shown = in_terminal(*arguments)
    assert "starting 1 rank of numpy" in shown
    assert "\x1b[32m" in shown
    text = subprocess.run([*UNITP, *arguments], capture_output=True, text=True, check=True).stdout
    assert text in shown.replace("\r\n", "\n")
    assert "\x1b[32m" not in in_terminal(*arguments, NO_COLOR="1")
