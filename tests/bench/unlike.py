"""Two heterogeneous devices, measured: does a plan whose bounds follow their speed beat the even one?

Two NumPy ranks, each on a core of its own; another process takes half of the core of rank 1, 5 ms at a time: a device half
as fast. (A process that is merely busy would not do: the scheduler divides a core fairly over a while, and gives a rank that
had to wait for the other one all that it then wants.) Both plans are the default ones of SmolLM2-135M, for prefill and
decode; what is timed is a prefill (a decode step waits 61 times for rank 1 to have its turn). They run in turn, in sessions
that are both open and warm. A round counts where the ranks had their share of processor time, as far as that can be seen:
what else the machine does would be another device. The ratio of medians is what matters; predicted is the same ratio by the
cost model. The exit code is 1 where the weighted plan is not faster, 2 where the machine was too busy to tell.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import numpy as np
import numpy.typing as npt

import unitp
from unitp.certificate import CertifiedPlan
from unitp.cost import Device, Machine
from unitp.explain.description import repriced
from unitp.frontends.model import Model
from unitp.mesh import Mesh
from unitp.ranks.processes import look, marked
from unitp.session.session import Session

MODEL, TOKENS, ROUNDS, SHARE = "smollm2-135m", 512, 5, 2
PATIENCE = 5
"""So many times as many rounds are tried as are wanted."""

NEAR = 0.12
"""A rank's share of its core may be off by so much of it: ranks wait for the driver, too, and processor time comes in ticks."""

NICE = 10
"""Of the slowed rank: what takes its core goes first."""

TAKE = """
import sys, time
taken = float(sys.argv[1])
begun, start = time.perf_counter(), time.process_time()
while True:
    until = time.process_time() + 0.005
    while time.process_time() < until:
        pass
    time.sleep(max(0.0, (time.process_time() - start) / taken - (time.perf_counter() - begun)))
"""
"""Takes a part of a core, 5 ms at a time, whatever else runs there."""


class Found(msgspec.Struct, frozen=True):
    """Seconds of a prefill in the rounds that count, how many did not, and the ratio of weighted to even: of medians, and predicted.

    `ratio` is None where no round counts.
    """

    even_s: list[float]
    weighted_s: list[float]
    disturbed: int
    ratio: float | None
    predicted: float


class Ranks:
    """The two ranks of a session, each kept with all its threads on a core of its own; rank 1 yields to what shares its core."""

    def __init__(self, session: Session, cores: list[int]) -> None:
        self.session = session
        found = [m for m in marked(session.cluster.mark).values() if m.worker]
        self.pids = {m.number: m.seen.pid for m in found if m.number is not None}
        for number, pid in self.pids.items():
            for thread in map(int, os.listdir(f"/proc/{pid}/task")):
                os.sched_setaffinity(thread, {cores[number]})
                if number == 1:
                    os.setpriority(os.PRIO_PROCESS, thread, NICE)

    def prefill(self, ids: npt.NDArray[np.int64]) -> tuple[float, list[float]]:
        """Seconds, and the part of them that each rank had its core. Ranks that wait for each other are busy doing so."""
        before, begun = self._cpu_s(), time.perf_counter()
        self.session.run(input_ids=ids, last=True)
        took = time.perf_counter() - begun
        return took, [(b - a) / took for a, b in zip(before, self._cpu_s(), strict=True)]

    def _cpu_s(self) -> list[float]:
        seen = (look(self.pids[rank]) for rank in sorted(self.pids))
        return [now.cpu_s for now in seen if now is not None]


def two_devices(share: int = SHARE) -> Machine:
    """The default machine, its second rank with one part in `share` of a core."""
    whole = Machine().device(0)
    part = Device(
        {dtype: flops / share for dtype, flops in whole.flops_per_s.items()},
        whole.memory_bytes_per_s / share,
        whole.operator_s * share,
    )
    return Machine(name="shared core", devices={"whole": whole, "part": part}, ranks=("whole", "part"))


def measure(model: Model, tokens: int = TOKENS, rounds: int = ROUNDS, share: int = SHARE) -> Found:
    """Prefills by both plans in turn, with rank 1 slowed."""
    machine = two_devices(share)
    plans = {"even": unitp.plan(model, Mesh(tp=2)), "weighted": unitp.plan(model, Mesh(tp=2), machine=machine)}
    ids = np.array([[(7 * i + 11) % 251 for i in range(tokens)]])
    cores = sorted(os.sched_getaffinity(0))[:2]
    took: dict[str, list[float]] = {name: [] for name in plans}
    disturbed = 0
    with ExitStack() as stack:
        ranks = {n: Ranks(stack.enter_context(unitp.launch(model, p, "numpy")), cores) for n, p in plans.items()}
        for one in ranks.values():
            one.prefill(ids)
        stack.enter_context(taken(cores[1], 1 - 1 / share))
        while len(took["even"]) < rounds and disturbed < (PATIENCE - 1) * rounds:
            turn = {name: ranks[name].prefill(ids) for name in ranks}
            wanted = (1.0, 1 / share)
            if all(abs(s - w) <= NEAR * w for _, shares in turn.values() for s, w in zip(shares, wanted, strict=True)):
                for name, (seconds, _) in turn.items():
                    took[name].append(seconds)
            else:
                disturbed += 1
    even, weighted = (took[name] for name in ("even", "weighted"))
    ratio = statistics.median(weighted) / statistics.median(even) if even else None
    predicted = predicted_s(plans["weighted"], model, machine) / predicted_s(plans["even"], model, machine)
    return Found(even, weighted, disturbed, ratio, predicted)


def predicted_s(plan: CertifiedPlan, model: Model, machine: Machine) -> float:
    return repriced(plan, model.graph, machine).phase("prefill").seconds


@contextmanager
def taken(core: int, part: float) -> Iterator[None]:
    """A process that takes a part of a core."""
    process = subprocess.Popen([sys.executable, "-S", "-c", TAKE, str(part)])
    try:
        os.sched_setaffinity(process.pid, {core})
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="unlike.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--share", type=int, default=SHARE, help="rank 1 gets one part in so many of its core")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(unitp.load(MODEL), given.tokens, given.rounds, given.share)
    if given.json:
        print(msgspec.json.encode(found).decode())
    else:
        for name, times in (("even", found.even_s), ("weighted", found.weighted_s)):
            if times:
                print(f"{name:9} {statistics.median(times):6.3f} s  ({' '.join(f'{t:.2f}' for t in times)})")
        measured = "not measured" if found.ratio is None else f"{found.ratio:.2f}"
        print(f"weighted / even {measured}, predicted {found.predicted:.2f}; {found.disturbed} rounds were disturbed")
    sys.exit(2 if found.ratio is None else 0 if found.ratio < 1 else 1)


if __name__ == "__main__":
    main()
