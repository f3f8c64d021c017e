"""The engine of a rank: programs are recorded once and run as compiled segments (`unitp_mxnet.segments`)."""

from __future__ import annotations

from typing import final

import numpy as np

from unitp.engine.base import BaseEngine, CompiledProgram
from unitp.engine.engine import Engine, EngineStats, Progress
from unitp.engine.transport import Alone, Buffers, CountedCollectives
from unitp.mesh import Mesh
from unitp.program.instructions import Program
from unitp.program.rank import local_shape
from unitp_mxnet import primitives
from unitp_mxnet.carried import CarriedCollectives
from unitp_mxnet.collectives import Collectives
from unitp_mxnet.operators import Tensor, call, mx, recording, symbol, variable
from unitp_mxnet.overrides import overrides
from unitp_mxnet.primitives import Rows
from unitp_mxnet.segments import RecordedProgram, Recording


def connect(rank: int, mesh: Mesh, progress: Progress | None, buffers: Buffers | None = None) -> Engine:
    """Join the ranks that `unitp_mxnet.cluster` started, or take those that `buffers` have joined."""
    collectives: CountedCollectives = Alone()
    if mesh.size > 1:
        collectives = Collectives(rank, mesh) if buffers is None else CarriedCollectives(buffers)
    engine = MxnetEngine(primitives, overrides, collectives, rank, mesh, progress)
    _warm_up()
    return engine


def _warm_up() -> None:
    """Run a small segment, as part of joining: MXNet sets itself up and reads its kernels (10 MB) at the first call, which
    would be on the first prompt's account.
    """
    ones = np.ones((32, 32), "float32")
    x = primitives.from_numpy(ones)
    y = call("softmax", primitives.linear(primitives.add(x, x), x), axis=1)
    y = primitives.concat([primitives.slice(y, 0, 0, 8), primitives.take(y, primitives.arange(0, 8, "int64"), 0)], 0)
    primitives.to_numpy(call("_linalg_gemm2", call("square", y), primitives.transpose(x, (1, 0))))
    names = [variable(number, ((32, 32), "float32")) for number in range(2)]
    segment = mx.nd.CachedOp(symbol("FullyConnected", names, (("no_bias", "True"), ("num_hidden", "32"))))
    primitives.to_numpy(segment(x, x))


@final
class MxnetEngine(BaseEngine):
    """Programs are recorded. `compiled` has the CachedOps of their segments."""

    def prepare(self, program: Program) -> CompiledProgram:
        """Fold constants, record the program on promises of its inputs and constants, and compile what was recorded."""
        if isinstance(self.collectives, Collectives):
            self.collectives.prepare(program)
        runner = self.folded(program)
        tape = Recording()
        with recording(tape):
            constants = [_promised(x, tape) for x in runner.initial]
            names = (*program.inputs, *(old for old, _ in program.states))
            given = {name: self._promise(program, name, tape) for name in names}
            results = runner.run(given, initial=constants, progress=tape)
        return RecordedProgram(self, runner, tape, results)

    def stats(self) -> EngineStats:
        """A program counts as traced while it is there."""
        tally = self.collectives.tally
        return EngineStats(tally.seconds, tally.calls, tally.bytes, len(self.programs))

    def _promise(self, program: Program, name: str, tape: Recording) -> Tensor:
        shape = local_shape(program, name, self.rank)
        return None if 0 in shape else tape.given(name, (shape, program.values[name].dtype))


def _promised(value: Tensor, tape: Recording) -> Tensor:
    """A constant that is there already, as a promise on a tape."""
    if isinstance(value, Rows):
        return Rows(tape.constant(value.weight))
    return None if value is None else tape.constant(value)
