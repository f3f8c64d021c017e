"""Fixtures of tests that start processes: a model small enough to start often, and the proof that nothing is left.

Every process that a test starts inherits a mark of that test; after the test none may be alive, and no folder may be
left.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from unitp.frontends.llama import LlamaConfig, decoder_graph
from unitp.graph.graph import Graph
from unitp.graph.source import RandomSource
from unitp.plugins.spec import BackendSpec
from unitp.runtime.processes import Seen, look

FAKES = Path(__file__).parents[1] / "fakes"
MARK = "UNITP_TEST"


def marked_by(mark: str) -> dict[int, dict[str, str]]:
    """The environments of all live processes that a test started, by process number."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            raw = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        seen = look(pid) if f"{MARK}={mark}".encode() in raw else None
        if seen is not None and seen.alive and pid != os.getpid():
            pairs = (item.partition("=") for item in raw.decode(errors="replace").split("\0"))
            found[pid] = {name: value for name, _, value in pairs}
    return found


class Zoo:
    """The processes that the present test has started."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def find(self, name: str, limit_s: float = 20.0) -> Seen:
        """The process called so ("rank 1", "server 0", "mpiexec", "hydra_pmi_proxy"), waiting for it to appear."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for pid, environment in marked_by(self.mark).items():
                seen = look(pid)
                if seen is not None and name in self._names(seen, environment):
                    return seen
            time.sleep(0.005)
        raise AssertionError(f"{name} did not appear")

    def _names(self, seen: Seen, environment: dict[str, str]) -> tuple[str, ...]:
        number = environment.get("UNITP_NUMBER", environment.get("PMI_RANK", ""))
        role = environment.get("UNITP_ROLE", "")
        return seen.command, f"{'rank' if role == 'worker' else role} {number}"

    def left(self, limit_s: float = 5.0) -> list[str]:
        """The processes that are still alive after a while."""
        deadline = time.monotonic() + limit_s
        while (alive := marked_by(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return [f"{pid} {environment.get('UNITP_ROLE', '')}" for pid, environment in alive.items()]


@pytest.fixture(autouse=True)
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Zoo]:
    """Marks what the test starts, and proves afterwards that neither a process nor a folder is left."""
    mark, folder = uuid.uuid4().hex, tmp_path / "sessions"
    folder.mkdir()
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    zoo = Zoo(mark)
    yield zoo
    assert zoo.left() == []
    assert list(folder.iterdir()) == []


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> BackendSpec:
    """The backend of tests/fakes."""
    monkeypatch.syspath_prepend(str(FAKES))
    from unitp_fake import SPEC

    assert isinstance(SPEC, BackendSpec)
    return SPEC


def tiny_decoder(layers: int = 2, context: int = 1024, vocab: int = 97) -> Graph:
    """A decoder with random weights: 9 query heads over 3 KV heads."""
    c = LlamaConfig(
        layers=layers, width=72, heads=9, kv_heads=3, head_dim=8, hidden=64, vocab=vocab, max_context=context
    )
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (c.vocab, c.width), "output_norm.weight": (c.width,)}
    for layer in range(layers):
        at = f"blk.{layer}"
        kv = c.kv_heads * c.head_dim
        shapes |= {f"{at}.attn_norm.weight": (c.width,), f"{at}.ffn_norm.weight": (c.width,)}
        shapes |= {f"{at}.attn_q.weight": (c.width, c.width), f"{at}.attn_output.weight": (c.width, c.width)}
        shapes |= {f"{at}.attn_k.weight": (kv, c.width), f"{at}.attn_v.weight": (kv, c.width)}
        shapes |= {f"{at}.ffn_gate.weight": (c.hidden, c.width), f"{at}.ffn_up.weight": (c.hidden, c.width)}
        shapes |= {f"{at}.ffn_down.weight": (c.width, c.hidden)}
    weights = {
        name: RandomSource(seed, shape, scale=0.3, offset=1.0 if len(shape) == 1 else 0.0)
        for seed, (name, shape) in enumerate(shapes.items())
    }
    return decoder_graph("tiny", c, weights)


@pytest.fixture(scope="session")
def tiny() -> Graph:
    return tiny_decoder()
