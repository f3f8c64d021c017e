"""`transformers` in float32 as a peer: `python -m speed.serve_transformers FOLDER THREADS`.

Where the environment says that there are several processes (as torchrun does), the model is split by its own `tp_plan`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from speed.peers import answers, tell


def main(folder: str, threads: int) -> None:
    """Answer requests until standard input ends."""
    out = answers()
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(threads)
    split: dict[str, Any] = {}
    if "WORLD_SIZE" in os.environ:
        from transformers.distributed import DistributedConfig

        split = {"distributed_config": DistributedConfig(tp_plan="auto")}
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **split).eval()
    tell(out, {})
    for line in sys.stdin:
        tell(out, continued(torch, model, **json.loads(line)))


class Clock:
    """What `generate` calls with the prompt, and then with each token as it comes."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """There is nothing to close."""


def continued(torch: Any, model: Any, ids: list[int], new_tokens: int) -> dict[str, Any]:
    """The tokens, and the seconds to the first one and to the last."""
    prompt, clock = torch.tensor([ids]), Clock()
    begun = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            streamer=clock,
        )
    first, last = clock.times[1] - begun, clock.times[-1] - begun
    return {"tokens": out[0, prompt.shape[1] :].tolist(), "first_s": first, "total_s": last}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
