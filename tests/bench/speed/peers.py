"""Peers in processes of their own, which answer requests line by line: `serve_llama` and `serve_transformers`.

A request goes to all processes of a peer (two of `transformers` with a `tp_plan`); the answer of the first one counts.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import msgspec

from speed.files import Files
from speed.subjects import LLAMA, Q4_1, Subject
from speed.took import Took

BENCH = Path(__file__).parents[1]
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
LEAVE_S = 20.0


class PeerError(Exception):
    """A peer that cannot be measured: the reason."""


class Lines:
    """A process that answers each line of JSON with one. What it writes to standard error is kept for the case that it ends."""

    def __init__(self, module: str, *arguments: str, env: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", module, *arguments]
        path = os.pathsep.join(filter(None, (str(BENCH), os.environ.get("PYTHONPATH"))))
        self._said: IO[bytes] = TemporaryFile()  # noqa: SIM115  (it lives as long as the process)
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **QUIET, **env, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def close(self) -> None:
        """End the process: it has nothing more to do when its input ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(LEAVE_S)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()

    def _ended(self) -> PeerError:
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return PeerError(f"it ended with exit code {code}: {lines[-1] if lines else 'it says nothing'}")


class Peer:
    """A peer that continues prompts greedily. `spell` turns its tokens into text, where it tells tokens only."""

    def __init__(self, processes: Sequence[Lines], spell: Callable[[list[int]], str]) -> None:
        self._processes, self._spell = processes, spell
        for one in processes:
            one.answer()  # it is ready

    @property
    def pids(self) -> list[int]:
        """The processes that compute."""
        return [one.pid for one in self._processes]

    def generate(self, prompts: list[list[int]], new_tokens: int) -> Took:
        """Continue one prompt. Raises PeerError if a process has ended."""
        (ids,) = prompts
        for one in self._processes:
            one.ask({"ids": ids, "new_tokens": new_tokens})
        found, *_ = [one.answer() for one in self._processes]
        text = found["text"] if "text" in found else self._spell(found["tokens"])
        return Took(text, 1, len(ids), new_tokens, found["first_s"], found["total_s"])

    def close(self) -> None:
        for one in self._processes:
            one.close()


def start(subject: Subject, files: Files, spell: Callable[[list[int]], str]) -> Peer:
    """Start a peer. Raises PeerError if it cannot run here."""
    threads = str(subject.threads)
    if subject.maker == LLAMA:
        file = files.q4_1 if subject.weights == Q4_1 else files.gguf
        made = [Lines("speed.serve_llama", str(file), threads, env={"OMP_NUM_THREADS": threads})]
    else:
        folder = files.even_heads if subject.shape else files.huggingface
        made = [
            Lines("speed.serve_transformers", str(folder), threads, env={"OMP_NUM_THREADS": threads, **group})
            for group in groups(subject.ranks)
        ]
    try:
        return Peer(made, spell)
    except PeerError:
        for one in made:
            one.close()
        raise


def groups(ranks: int) -> list[dict[str, str]]:
    """What torchrun would set for each process; nothing for a single one."""
    if ranks == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": str(ranks)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def answers() -> IO[str]:
    """For a serving process: where its answers go. All else that is printed goes to standard error from now on."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return out


def tell(out: IO[str], answer: object) -> None:
    """Answer one line."""
    out.write(msgspec.json.encode(answer).decode() + "\n")
    out.flush()
