"""The peer that `make bench` measures against: `transformers` in a process of its own, float32, one thread.

It reads a JSON line `{"ids": [...], "new_tokens": n}` from standard input, continues greedily, and answers with one line:
the tokens, the seconds to the first token, and the seconds in all. Run it as `peer.py FOLDER`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}


class Took(NamedTuple):
    """What a continuation took, in seconds, and its tokens."""

    tokens: list[int]
    first_s: float
    total_s: float

    @property
    def decode_per_s(self) -> float:
        """Tokens per second after the first."""
        return (len(self.tokens) - 1) / (self.total_s - self.first_s)


class Peer:
    """`transformers` over a Hugging Face directory, as a context manager."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        env = {**os.environ, **QUIET, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, str(folder)]
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def generate(self, ids: list[int], new_tokens: int) -> Took:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"ids": ids, "new_tokens": new_tokens}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"transformers ended with exit code {self._process.wait()}")
        return Took(**json.loads(line))

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def serve(folder: str) -> None:
    """Answer requests until standard input ends."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for line in sys.stdin:
        request = json.loads(line)
        times: list[float] = []

        class Clock:
            """What `generate` calls with the prompt, and then with each token as it comes."""

            def put(self, value: Any) -> None:
                times.append(time.perf_counter())  # noqa: B023  (the clock lives no longer than its turn)

            def end(self) -> None:
                """There is nothing to close."""

        ids = torch.tensor([request["ids"]])
        begun = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=request["new_tokens"],
                min_new_tokens=request["new_tokens"],
                do_sample=False,
                streamer=Clock(),
            )
        took = Took(out[0, ids.shape[1] :].tolist(), times[1] - begun, times[-1] - begun)
        print(json.dumps(took._asdict()), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
