"""Who is measured: values that compare, so that a ratio can say of whom it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from unitp.plugins.spec import BackendSpec
from unitp.plugins.transports import usable

LLAMA, TRANSFORMERS = "llama.cpp", "transformers"
FLOAT32, Q4_1, BFLOAT16 = "float32", "Q4_1", "bfloat16"
NATIVE, MPI = "native", "mpi"
EVEN_HEADS = "8/4 heads"
"""The shape that `transformers` can split over two ranks: SmolLM2-135M with 8 query and 4 KV heads instead of 9 and 3."""


class Subject(msgspec.Struct, frozen=True, order=True):
    """One that is measured: `ranks` processes of `threads` threads each.

    `maker` is a backend, a peer, or a way to read memory (`speed.limits`). `transport` is empty where one process is alone, and
    for peers. `shape` is empty for SmolLM2-135M as it is.
    """

    maker: str
    ranks: int = 1
    threads: int = 1
    transport: str = ""
    weights: str = FLOAT32
    shape: str = ""

    @property
    def name(self) -> str:
        """For tables: `torch mpi tp=2`, `llama.cpp 2 threads Q4_1`."""
        many = f"{self.threads} threads" if self.threads > 1 else "1 thread"
        width = f"tp={self.ranks}" if self.ranks > 1 or self.maker not in (LLAMA, TRANSFORMERS) else many
        weights = "" if self.weights == FLOAT32 else self.weights
        return " ".join(filter(None, (self.maker, self.transport, width, weights, self.shape)))

    @property
    def own(self) -> bool:
        """Whether it is unitp that is measured."""
        return self.maker not in (LLAMA, TRANSFORMERS)


def of_backend(spec: BackendSpec) -> Iterator[Subject]:
    """One rank, two ranks over each transport, and over the first of them weights of 16 bits, where it can hold them."""
    yield Subject(spec.name)
    for transport in usable(spec):
        yield Subject(spec.name, 2, transport=transport)
    if BFLOAT16 in spec.weights:
        yield Subject(spec.name, 2, transport=usable(spec)[0], weights=BFLOAT16)


def everyone(specs: Mapping[str, BackendSpec]) -> list[Subject]:
    """All subjects, in the order of turns and tables: peers are between those whose ratio to them is wanted."""
    numpy = [subject for name, spec in specs.items() if name == "numpy" for subject in of_backend(spec)]
    found = numpy + [Subject(LLAMA, threads=n, weights=weights) for weights in (FLOAT32, Q4_1) for n in (1, 2)]
    found += [Subject(TRANSFORMERS, threads=n) for n in (1, 2)]
    found += [subject for name, spec in specs.items() if name != "numpy" for subject in of_backend(spec)]
    if "torch" in specs:
        found += [Subject("torch", 2, transport=t, shape=EVEN_HEADS) for t in usable(specs["torch"])]
    return [*found, Subject(TRANSFORMERS, 2, shape=EVEN_HEADS)]


def chosen(subjects: Sequence[Subject], only: str) -> list[Subject]:
    """Those whose names contain one of the words in `only` (separated by commas); all if there is none.

    Raises ValueError for a word that is in no name.
    """
    words = [word.strip() for word in only.split(",") if word.strip()]
    for word in words:
        if not any(word in subject.name for subject in subjects):
            raise ValueError(f'no subject has "{word}" in its name: {", ".join(s.name for s in subjects)}')
    return [s for s in subjects if not words or any(word in s.name for word in words)]


def options_of(subject: Subject) -> dict[str, Any]:
    """What `unitp.launch` is given for a subject, besides model, plan and backend."""
    found: dict[str, Any] = {"threads": subject.threads}
    if subject.transport:
        found["transport"] = subject.transport
    return found
