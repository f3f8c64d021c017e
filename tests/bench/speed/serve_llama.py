"""llama.cpp (`xllamacpp`) as a peer: `python -m speed.serve_llama FILE.gguf THREADS`.

Seconds are the server's own, which leave out its JSON and Python. All settings are its defaults (its cache is float16, and it
takes flash attention where that is faster), but for the number of threads, one sequence, and no reuse of a prompt.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from speed.peers import answers, tell

CONTEXT = 512


def main(file: str, threads: int) -> None:
    """Answer requests until standard input ends."""
    out = answers()
    import xllamacpp  # type: ignore[import-untyped, import-not-found, unused-ignore]

    settings = xllamacpp.CommonParams()
    settings.model.path = file
    settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = CONTEXT, 1, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.fit_params, settings.cache_ram_mib = False, 0
    settings.verbosity = 0
    server: Any = xllamacpp.Server(settings)
    tell(out, {})
    for line in sys.stdin:
        tell(out, continued(server, **json.loads(line)))


def continued(server: Any, ids: list[int], new_tokens: int) -> dict[str, Any]:
    """The text, and the seconds to the first token and in all."""
    request = {
        "prompt": ids,
        "n_predict": new_tokens,
        "temperature": 0,
        "samplers": ["top_k"],
        "top_k": 1,
        "cache_prompt": False,
        "ignore_eos": True,
    }
    found = server.handle_completions(request)
    if "timings" not in found:
        raise RuntimeError(f"llama.cpp answers {json.dumps(found)}")
    timings = found["timings"]
    if timings["predicted_n"] != new_tokens or timings["prompt_n"] != len(ids):
        raise RuntimeError(f"{len(ids)} + {new_tokens} tokens were asked for: {json.dumps(timings)}")
    first = timings["prompt_ms"] / 1e3
    return {
        "text": found["choices"][0]["text"],
        "first_s": first,
        "total_s": first + timings["predicted_ms"] / 1e3,
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
