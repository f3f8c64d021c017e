"""What the product has to show: ratios within a round, each with what is wanted and what was got.

line     wanted  got: median (lowest to highest)  of whom
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from speed.figures import Figures, Key, Spread, Values, combined, ratio, spread
from speed.subjects import BFLOAT16, EVEN_HEADS, FLOAT32, LLAMA, MPI, NATIVE, TRANSFORMERS, Subject
from speed.turns import (
    ALL_REDUCE,
    ALL_REDUCE_ALONE,
    BESIDE,
    DECODE,
    DECODE_8,
    DRIVER,
    KERNEL_GAIN,
    PREFILL,
)

SECOND_RANK = {"numpy": 1.3, "torch": 1.4, "tensorflow": 1.2, "mxnet": 1.1}
AGAINST_TRANSFORMERS = {"numpy": 2.3, "torch": 1.3, "tensorflow": 1.1, "mxnet": 1.0}
PREFILL_SECOND_RANK = {"numpy": 1.7, "torch": 1.5}
ALL_REDUCE_US = {"numpy": 40.0, "torch": 60.0, "tensorflow": 350.0, "mxnet": 400.0}
ONE_THREAD, LLAMA_2 = Subject(TRANSFORMERS), Subject(LLAMA, threads=2)


class Line(msgspec.Struct, frozen=True):
    """One thing that is wanted. `got` is None where it was not measured. `unit` is "" for a ratio."""

    what: str
    wanted: float
    got: Spread | None
    of: str = ""
    at_most: bool = False
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median is as wanted; None where there is none."""
        if self.got is None:
            return None
        return self.got.median <= self.wanted if self.at_most else self.got.median >= self.wanted


class Wanted:
    """The lines of a run. `model_bytes`: of the float32 weights that a decode step reads."""

    def __init__(self, figures: Figures, model_bytes: int) -> None:
        self._figures, self._bytes = figures, model_bytes

    def lines(self) -> Iterator[Line]:
        yield from self._against_the_limits()
        yield from self._second_rank()
        yield from self._against_transformers()
        yield from self._torch()
        yield from self._prefill()
        yield self._ratio(
            "decode, bfloat16 weights over float32, numpy tp=2",
            1.4,
            self._best(DECODE, maker="numpy", ranks=2, weights=BFLOAT16),
            self._two_ranks("numpy"),
        )
        for ranks in (1, 2):
            one = self._best(DECODE, maker="numpy", ranks=ranks, weights=FLOAT32)
            many = one and Key(DECODE_8, one.subject)
            yield self._ratio(f"decode, 8 prompts at once over one, numpy tp={ranks}", 3.5, many, one)
        yield from self._all_reduce()
        yield self._below("lost by the driver, numpy tp=2", 3.0, "%", self._lowest(DRIVER, maker="numpy", ranks=2))

    def _against_the_limits(self) -> Iterator[Line]:
        best = self._figures.best(DECODE, lambda s: s.own and not s.shape and s.weights == FLOAT32, ranks=2)
        what = "decode tp=2, best backend, over llama.cpp float32 2 threads"
        yield self._ratio(what, 1.25, best, Key(DECODE, LLAMA_2))
        what, got = "decode tp=2, best backend, of the machine's limit", None
        if best:
            limits = self._figures[Key(BESIDE, best.subject)]
            got = spread(combined(lambda t, gb: t * self._bytes / gb / 1e9, self._figures[best], limits))
        yield Line(what, 0.85, got, best.subject.name if best and got else "")

    def _second_rank(self) -> Iterator[Line]:
        for maker, wanted in SECOND_RANK.items():
            two, one = self._two_ranks(maker), Key(DECODE, Subject(maker))
            yield self._ratio(f"decode tp=2 over tp=1, {maker}", wanted, two, one)
            if maker == "numpy":
                yield self._of_the_kernel(two, one)

    def _of_the_kernel(self, two: Key | None, one: Key) -> Line:
        """The gain by a second rank as part of what the bare kernel gains."""
        got = None
        if two:
            gains = ratio(self._figures[two], self._figures[one])
            got = spread(ratio(gains, self._figures[Key(KERNEL_GAIN, two.subject)]))
        return Line(
            "the same as part of the bare kernel's gain, numpy", 0.93, got, two.subject.name if two and got else ""
        )

    def _against_transformers(self) -> Iterator[Line]:
        for maker, wanted in AGAINST_TRANSFORMERS.items():
            what = f"decode tp=1 over transformers 1 thread, {maker}"
            yield self._ratio(what, wanted, Key(DECODE, Subject(maker)), Key(DECODE, ONE_THREAD))

    def _torch(self) -> Iterator[Line]:
        mpi, gloo = (Key(DECODE, Subject("torch", 2, transport=name)) for name in (MPI, NATIVE))
        yield self._ratio("decode tp=2, torch over MPI against gloo", 2.7, mpi, gloo)
        peer = Key(DECODE, Subject(TRANSFORMERS, 2, shape=EVEN_HEADS))
        best = self._best(DECODE, maker="torch", ranks=2, shape=EVEN_HEADS)
        yield self._ratio(f"decode tp=2, torch over transformers with its tp_plan, {EVEN_HEADS}", 4.0, best, peer)

    def _prefill(self) -> Iterator[Line]:
        for maker, wanted in PREFILL_SECOND_RANK.items():
            two = self._best(PREFILL, maker=maker, ranks=2, weights=FLOAT32)
            yield self._ratio(f"prefill tp=2 over tp=1, {maker}", wanted, two, Key(PREFILL, Subject(maker)))
        two = self._best(PREFILL, maker="numpy", ranks=2, weights=FLOAT32)
        yield self._ratio("prefill, numpy tp=2 over llama.cpp float32 2 threads", 1.3, two, Key(PREFILL, LLAMA_2))

    def _all_reduce(self) -> Iterator[Line]:
        for maker, wanted in ALL_REDUCE_US.items():
            mpi = {} if maker == "numpy" else {"transport": MPI}
            found = self._lowest(ALL_REDUCE, maker=maker, ranks=2, **mpi)
            found = found or self._lowest(ALL_REDUCE_ALONE, maker=maker, ranks=2, **mpi)
            yield self._below(f"small all-reduce over MPI, {maker}", wanted, "us", found)

    # of figures

    def _best(self, measure: str, **attributes: object) -> Key | None:
        return self._figures.best(measure, lambda _: True, **attributes)

    def _two_ranks(self, maker: str) -> Key | None:
        """Decoding on two ranks, over the transport that is fastest."""
        return self._best(DECODE, maker=maker, ranks=2, weights=FLOAT32, shape="")

    def _lowest(self, measure: str, **attributes: object) -> Key | None:
        found = self._figures.of(measure, **attributes)
        medians = [(seen.median, subject) for subject, values in found.items() if (seen := spread(values))]
        return Key(measure, min(medians)[1]) if medians else None

    def _ratio(self, what: str, wanted: float, above: Key | None, below: Key | None) -> Line:
        got = spread(ratio(self._values(above), self._values(below)))
        return Line(what, wanted, got, above.subject.name if above and got else "")

    def _below(self, what: str, wanted: float, unit: str, key: Key | None) -> Line:
        got = spread(self._values(key))
        of = "" if key is None else key.subject.name + (", alone" if key.measure == ALL_REDUCE_ALONE else "")
        return Line(what, wanted, got, of, at_most=True, unit=unit)

    def _values(self, key: Key | None) -> Values:
        return self._figures[key] if key else []
