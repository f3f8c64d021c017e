"""Random faults: `faults.py --seed 7 --count 200 [--from K] [--backends numpy,torch]`, which is `make faults`.

Each one starts a driver with two ranks of a tiny model, waits for its stage (start, prefill, decode), and then kills, stops,
stops and continues, or freezes somebody: a rank, launcher, server, scheduler, the supervisor, the driver, or all of them. The
driver may have forked children, which live on. What must come of it: one error that names the process, within 15 s, or a
right result (after a freeze of everything: the result); and nothing may be left, though children of a killed driver live.

Fault K of a seed is always the same one, so that `--from K --count 1` tries it again. The exit code is 1 if any failed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from drivers import BORN_S, DRIVER, Driver
from zoo import MARK, Surroundings, Zoo, listening, marked_by

LIMIT_S = 15.0
LAUNCHED = ("rank 0", "rank 1", "mpiexec", "hydra_pmi_proxy")
TARGETS = {
    "numpy": LAUNCHED,
    "torch": ("rank 0", "rank 1"),
    "tensorflow": ("rank 0", "rank 1"),
    "mxnet": ("rank 0", "rank 1", "server 0", "scheduler 0"),
    "torch/mpi": LAUNCHED,
    "tensorflow/mpi": LAUNCHED,
    "mxnet/mpi": LAUNCHED,
}
"""Who there is, by backend, or by backend and transport."""
STARTING_S = {"numpy": 1.5, "torch": 3.0, "tensorflow": 6.0, "mxnet": 4.0}
STAGES = ("start", "prefill", "decode")


class Fault(NamedTuple):
    """`what` happens to `target` so long after its `stage` began; what is stopped is continued after `pause_s` (None: never)."""

    backend: str
    stage: str
    what: str
    target: str
    after_s: float
    pause_s: float | None
    children: str

    def __str__(self) -> str:
        children = "" if self.children == "none" else f" (children: {self.children})"
        return f"{self.backend:14} {self.stage:7} {self.what} {self.target}{children}"


def draw(seed: int, number: int, backends: tuple[str, ...]) -> Fault:
    """Fault `number` of a seed."""
    rng = random.Random(f"{seed} {number}")
    backend, stage = rng.choice(backends), rng.choice(STAGES)
    what = rng.choice(("kill", "kill", "stop", "pause", "freeze"))
    target = rng.choice((*TARGETS[backend], "supervisor", "driver"))
    after_s = rng.uniform(0, STARTING_S[backend.partition("/")[0]] if stage == "start" else 0.5)
    pause_s = rng.uniform(0.1, 5.0) if what in ("pause", "freeze") else None
    if what == "freeze":
        target = "all"
    if (what, target) == ("stop", "driver"):  # nobody would be there to tell: it is killed while a rank is stopped
        what, target = "stop and kill", "driver"
    return Fault(backend, stage, what, target, after_s, pause_s, rng.choice(("none", "none", "fork", "pool")))


class Trial:
    """One fault, carried out. `outcome` is what came of it; raises AssertionError where that is wrong."""

    def __init__(self, fault: Fault, expected: Path, number: int, seed: int) -> None:
        self.fault, self.expected = fault, expected
        self.rng = random.Random(f"{seed} {number} order")
        self.zoo = Zoo(uuid.uuid4().hex[:12])
        self.surroundings = Surroundings()

    def outcome(self) -> str:
        with tempfile.TemporaryDirectory(
            prefix=self.zoo.mark, dir="/tmp"
        ) as folder:  # ranks inherit the mark in its path
            words = ("--children", self.fault.children, "--expected", str(self.expected))
            environment = {MARK: self.zoo.mark, "TMPDIR": folder}
            try:
                with Driver(self.fault.backend, self.fault.stage, *words, environment=environment) as driver:
                    driver.wait_for("launching" if self.fault.stage == "start" else "turn")
                    time.sleep(self.fault.after_s)
                    outcome = self._strike_and_judge(driver)
                    self._nothing_left(driver, Path(folder))
            finally:
                for pid in marked_by(self.zoo.mark):
                    _send(pid, signal.SIGKILL)
        return outcome

    def _strike_and_judge(self, driver: Driver) -> str:
        fault = self.fault
        if fault.what == "freeze":
            self._freeze(driver)
        else:
            at = fault.target if fault.what != "stop and kill" else self.rng.choice(TARGETS[fault.backend])
            pid = driver.pid if at == "driver" else self.zoo.find(at).pid
            _send(pid, signal.SIGKILL if fault.what == "kill" else signal.SIGSTOP)
            if fault.what == "stop and kill":
                time.sleep(self.rng.uniform(0, 0.3))
                _send(driver.pid, signal.SIGKILL)
            if fault.pause_s is not None:
                time.sleep(fault.pause_s)
                _send(pid, signal.SIGCONT)
        begun = time.monotonic()
        if fault.pause_s is not None:
            driver.finish()
        works_on = fault.stage == "start" or fault.pause_s is not None
        assert driver.ends_within(LIMIT_S + (BORN_S if works_on else 0)), "no error, and no result"
        return self._judge(driver, time.monotonic() - begun)

    def _judge(self, driver: Driver, took_s: float) -> str:
        fault, code = self.fault, driver.process.returncode
        if fault.what in ("kill", "stop and kill") and fault.target == "driver":
            assert code == -signal.SIGKILL, driver.last_words()
            return "ended"
        if code == 0:
            assert fault.pause_s is not None, "a result, as if nothing had happened"
            assert "right\n" in driver.said, f"no result: {driver.last_words()}"
            return "right"
        words = driver.last_words()
        assert code == 3, words
        assert words.startswith("RankError: "), words
        forgiven = fault.what == "freeze" or (fault.what, fault.target) == ("pause", "driver")
        assert not forgiven, f"not forgiven: {words}"
        assert took_s < LIMIT_S, f"after {took_s:.1f} s: {words}"
        assert fault.stage == "start" or fault.target in words, f"another is named: {words}"
        return f"{took_s:4.1f} s: {words.partition(': ')[2].splitlines()[0][:100]}"

    def _freeze(self, driver: Driver) -> None:
        """Stop everything of the session, in any order, and let it go on again, in another."""
        assert self.fault.pause_s is not None
        pids = [driver.pid, *(pid for pid in marked_by(self.zoo.mark) if pid != driver.pid)]
        self.rng.shuffle(pids)
        for pid in pids:
            _send(pid, signal.SIGSTOP)
            time.sleep(self.rng.uniform(0, 0.05))
        time.sleep(self.fault.pause_s)
        self.rng.shuffle(pids)
        for pid in pids:
            _send(pid, signal.SIGCONT)
            time.sleep(self.rng.uniform(0, 0.1))

    def _nothing_left(self, driver: Driver, folder: Path) -> None:
        """No process but children that the driver forked, which are then ended; no folder, segment or file."""
        deadline = time.monotonic() + LIMIT_S
        while (left := self._alive(driver)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, f"left: {left}"
        ports = [port for pid in driver.children if Path(f"/proc/{pid}/fd").exists() for port in listening(pid)]
        assert not ports, f"children of the driver hold ports: {ports}"
        for pid in driver.children:
            _send(pid, signal.SIGKILL)
        deadline = time.monotonic() + LIMIT_S
        while (files := [path.name for path in folder.iterdir()]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not files, f"left in the temporary folder: {files}"
        assert not (traces := self.surroundings.left()), f"left: {traces}"

    def _alive(self, driver: Driver) -> list[str]:
        alive = {pid: names for pid, names in marked_by(self.zoo.mark).items() if pid not in driver.children}
        return [f"{names.get('UNITP_ROLE', 'driver')} ({pid})" for pid, names in alive.items()]


def _send(pid: int, sent: signal.Signals) -> None:
    try:
        os.kill(pid, sent)
    except ProcessLookupError:
        return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="K", help="the first fault to try")
    parser.add_argument("--backends", default=",".join(TARGETS))
    given = parser.parse_args()
    backends, failed = tuple(given.backends.split(",")), []
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder, "expected.json")
        subprocess.run([sys.executable, str(DRIVER), "expect", str(expected)], check=True)
        for number in range(given.first, given.first + given.count):
            fault = draw(given.seed, number, backends)
            try:
                words = Trial(fault, expected, number, given.seed).outcome()
            except AssertionError as error:
                words = f"FAILED: {error}"
                failed.append(number)
            print(f"{number:4} {fault!s:60} {words}", flush=True)
    print(f"{given.count - len(failed)} of {given.count} faults passed" + (f"; failed: {failed}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
