"""The messages between driver and workers. Every request gets one reply, in order.

    worker -> driver   Hello and Proof, once (`unitp.wire.greeting`); then a reply to each request: Done, Arrays, Decoded,
                       Refused, Checked, Answer, Measured, or Failed, after which it waits for its end;
                       before Decoded or Refused, a Told for each step
    driver -> worker   Challenge and Start, once; then requests

Processes that only serve (a KVStore server, a scheduler) are greeted, get Start and send nothing more. An open
connection keeps them alive.
"""

from __future__ import annotations

import msgspec

from unitp.engine.engine import EngineStats, NotFinite
from unitp.engine.sampling import Sampling
from unitp.graph.values import Parameter
from unitp.layout import Interval
from unitp.mesh import Mesh


class ArrayPart(msgspec.Struct, frozen=True, array_like=True):
    """An array in a message: its bytes, or (`offset` >= 0) its offset in the sender's mapped file."""

    dtype: str
    shape: tuple[int, ...]
    data: bytearray = msgspec.field(default_factory=bytearray)
    offset: int = -1


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first message of a process: who it is, and random bytes. `number` counts the processes of a role (for workers: rank)."""

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
    """Join the ranks of this mesh with the engine of the named backend, whose plug-in says where the engine is.

    `transport` carries the collectives: "native", or one that the module `plugin` describes (empty: the one that is installed).
    """

    backend: str
    mesh: Mesh
    transport: str = "native"
    plugin: str = ""


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
    """Free banks."""

    banks: tuple[int, ...]


class Compile(msgspec.Struct, frozen=True, tag="compile"):
    """Compile a program. `number` names it in the progress page; `wanted` are the outputs that this rank sends back."""

    key: str
    number: int
    program: bytes
    wanted: tuple[str, ...]


class Forget(msgspec.Struct, frozen=True, tag="forget"):
    """Drop a program."""

    key: str


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Run a program on the states of a bank. If `traced`, the reply says when each instruction began."""

    key: str
    inputs: dict[str, ArrayPart]
    bank: int = 0
    traced: bool = False


class Rules(msgspec.Struct, frozen=True, array_like=True):
    """How the ranks decode by themselves: at most `steps` steps, whose tokens are new token `first`, `first + 1`, ... of each row.

    `left` is how many tokens each row of the batch may still get; it is 0 for one that has ended. A row also ends with a token
    of `stop_ids`.
    """

    steps: int
    first: int
    left: tuple[int, ...]
    sampling: Sampling
    stop_ids: tuple[int, ...] = ()


class Decode(msgspec.Struct, frozen=True, tag="decode"):
    """Run a program of one token per row, decide on the next tokens, and go on with them.

    `inputs` are those of the first step, `bank` has the caches. Ranks for which the program has outputs to send (see Compile)
    send a Told after each step.
    """

    key: str
    inputs: dict[str, ArrayPart]
    bank: int
    rules: Rules


class Check(msgspec.Struct, frozen=True, tag="check"):
    """Like Run, but search instruction by instruction for values that are not finite. Outputs are not sent."""

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
    """Ask for statistics and memory use."""


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Leave the group of ranks and end."""


Request = (
    Challenge
    | Start
    | Load
    | Allocate
    | Free
    | Compile
    | Forget
    | Run
    | Decode
    | Check
    | Reset
    | Probe
    | Measure
    | Close
)


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The request was carried out, and there is nothing to return."""


class Trace(msgspec.Struct, frozen=True, array_like=True):
    """When a call began and ended on a rank, and when each instruction began.

    Times are nanoseconds of a clock that all processes of a host share. If a framework runs several instructions in one call,
    only the first of them is listed.
    """

    begun: int
    ended: int
    marks: tuple[tuple[int, int], ...]


class Arrays(msgspec.Struct, frozen=True, tag="arrays"):
    arrays: dict[str, ArrayPart]
    trace: Trace | None = None


NO_TOKEN = -1
"""Stands for the token of a row that has ended."""


class Told(msgspec.Struct, frozen=True, tag="told"):
    """The tokens of one step for the rows that this rank decides on. It is no reply: more follows."""

    tokens: tuple[int, ...]


class Decoded(msgspec.Struct, frozen=True, tag="decoded"):
    """What this rank has decided on, step by step. `problem` says why it could not decide on a token of the next step."""

    steps: tuple[tuple[int, ...], ...]
    problem: str = ""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The request cannot be answered because of its inputs (an InputError). The rank has carried it out and serves on.

    Other ranks may report other elements. The one with the smallest `order` is the first.
    """

    message: str
    hint: str = ""
    order: tuple[int, ...] = ()


class Checked(msgspec.Struct, frozen=True, tag="checked"):
    """The first instruction of this rank whose output is not finite, or None."""

    found: NotFinite | None


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """The sum of a probe."""

    value: float


class Memory(msgspec.Struct, frozen=True):
    """The resident bytes of a rank: before loading, now, and at the peak."""

    idle: int
    now: int
    peak: int


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    stats: EngineStats
    memory: Memory


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker raised `kind` with `message`; `trace` is the text of the traceback."""

    kind: str
    message: str
    hint: str
    trace: str


Reply = Hello | Proof | Done | Arrays | Told | Decoded | Refused | Checked | Answer | Measured | Failed
