"""What driver and workers say to each other: every request gets one reply, in order.

    worker -> driver   Hello and Proof, once (`unitp.wire.greeting`); then a reply to each request: Done, Arrays,
                       Refused, Checked, Answer, Measured, or Failed, after which it waits for its end
    driver -> worker   Challenge and Start, once; then requests

Processes that only serve (a KVStore server, a scheduler) are greeted, get Start and say nothing more; an open
connection keeps them alive.
"""

from __future__ import annotations

import msgspec

from unitp.engine.engine import EngineStats, NotFinite
from unitp.graph.values import Parameter
from unitp.layout import Interval
from unitp.mesh import Mesh


class ArrayPart(msgspec.Struct, frozen=True, array_like=True):
    """An array in a message: its bytes, or (`offset` >= 0) where they lie in the sender's mapped file."""

    dtype: str
    shape: tuple[int, ...]
    data: bytearray = msgspec.field(default_factory=bytearray)
    offset: int = -1


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First words of a process: who it is, and random bytes. `number` counts the processes of a role (ranks, for workers)."""

    role: str
    number: int
    pid: int
    nonce: bytes


class Challenge(msgspec.Struct, frozen=True, tag="challenge"):
    """The driver's random bytes, and its proof that it has the session's key."""

    nonce: bytes
    proof: bytes


class Proof(msgspec.Struct, frozen=True, tag="proof"):
    """The process's proof that it has the session's key."""

    proof: bytes


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Join the ranks of this mesh with the engine of a backend, which is named; its plug-in says where the engine is."""

    backend: str
    mesh: Mesh


class ParameterPart(msgspec.Struct, frozen=True):
    """The part of a parameter that this rank reads, and the dtype in which it is kept."""

    parameter: Parameter
    intervals: tuple[Interval, ...]
    dtype: str


class Load(msgspec.Struct, frozen=True, tag="load"):
    parts: tuple[ParameterPart, ...]


class StatePart(msgspec.Struct, frozen=True):
    name: str
    shape: tuple[int, ...]
    dtype: str


class Allocate(msgspec.Struct, frozen=True, tag="allocate"):
    """Make a bank: one set of all states."""

    bank: int
    states: tuple[StatePart, ...]


class Free(msgspec.Struct, frozen=True, tag="free"):
    """Let banks go."""

    banks: tuple[int, ...]


class Compile(msgspec.Struct, frozen=True, tag="compile"):
    """`number` is how the progress page names the program; `wanted` are the outputs that this rank sends back."""

    key: str
    number: int
    program: bytes
    wanted: tuple[str, ...]


class Forget(msgspec.Struct, frozen=True, tag="forget"):
    """Let a program go."""

    key: str


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Run a program on the states of a bank. `traced`: the reply tells when each instruction began."""

    key: str
    inputs: dict[str, ArrayPart]
    bank: int = 0
    traced: bool = False


class Check(msgspec.Struct, frozen=True, tag="check"):
    """As Run, instruction by instruction, in search of numbers that are none. Outputs are not sent."""

    key: str
    inputs: dict[str, ArrayPart]
    bank: int = 0


class Reset(msgspec.Struct, frozen=True, tag="reset"):
    """Zero the states of a bank."""

    bank: int


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Sum a number over all ranks."""

    value: float


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Ask for statistics and memory."""


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Leave the group of ranks and end."""


Request = Challenge | Start | Load | Allocate | Free | Compile | Forget | Run | Check | Reset | Probe | Measure | Close


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Carried out; there is nothing to tell."""


class Trace(msgspec.Struct, frozen=True, array_like=True):
    """When a call began and ended on a rank, and each instruction (where a framework runs several in one call: the first of
    these) with when it began: nanoseconds of a clock that all processes of a host share.
    """

    begun: int
    ended: int
    marks: tuple[tuple[int, int], ...]


class Arrays(msgspec.Struct, frozen=True, tag="arrays"):
    arrays: dict[str, ArrayPart]
    trace: Trace | None = None


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The call cannot be answered for what it was given (an InputError); the rank has carried it out and serves on.

    Other ranks may say the same of other elements: that with the smallest `order` tells of the first.
    """

    message: str
    hint: str = ""
    order: tuple[int, ...] = ()


class Checked(msgspec.Struct, frozen=True, tag="checked"):
    """The first instruction of this rank whose output is not finite; None where all are."""

    found: NotFinite | None


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """The sum of a probe."""

    value: float


class Memory(msgspec.Struct, frozen=True):
    """Resident bytes of a rank: initialised but empty, now, and at most."""

    idle: int
    now: int
    peak: int


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    stats: EngineStats
    memory: Memory


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker raised `kind`: `message`; `trace` is the traceback's text."""

    kind: str
    message: str
    hint: str
    trace: str


Reply = Hello | Proof | Done | Arrays | Refused | Checked | Answer | Measured | Failed
