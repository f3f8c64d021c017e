"""The engine of a rank: programs are recorded once and run as compiled segments (`unitp_mxnet.segments`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unitp.engine.constants import Constants, Key
from unitp.engine.eager import EagerEngine
from unitp.engine.engine import Engine, Progress
from unitp.engine.interpreter import Runner
from unitp.engine.transport import Alone
from unitp.mesh import Mesh
from unitp.program.instructions import Program
from unitp.program.rank import local_shape
from unitp_mxnet import primitives
from unitp_mxnet.collectives import Collectives
from unitp_mxnet.operators import Tensor, call, mx, recording, symbol, variable
from unitp_mxnet.overrides import overrides
from unitp_mxnet.primitives import Rows
from unitp_mxnet.segments import Compiled, Recording, Segments, Structure


def connect(rank: int, mesh: Mesh, progress: Progress | None) -> Engine:
    """Join the group of ranks that `unitp_mxnet.cluster` started."""
    engine = SegmentEngine(rank, mesh, progress)
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


class SegmentEngine(EagerEngine):
    """The eager engine, except that what runs is the program's segments."""

    def __init__(self, rank: int, mesh: Mesh, progress: Progress | None) -> None:
        super().__init__(
            primitives, overrides, Collectives(rank, mesh) if mesh.size > 1 else Alone(), rank, mesh, progress
        )
        self._compiled: dict[Structure, Compiled] = {}

    def compile(self, key: str, program: Program) -> None:
        """Fold constants, record the program on promises of its inputs, and compile what was recorded."""
        if isinstance(self._collectives, Collectives):
            self._collectives.prepare(program)
        super().compile(key, program)
        tape = Recording()
        runner = Runner(program, self._rank, self._p, self._overrides, self._collectives, tape)
        with recording(tape):
            runner.fold(_Promised(self._constants, tape))
            names = (*program.inputs, *(old for old, _ in program.states))
            results = runner.run({name: self._promise(program, name, tape) for name in names})
        self._runners[key] = Segments(runner, tape, results, self._compiled, self._progress)

    def forget(self, key: str) -> None:
        super().forget(key)
        used = {s for runner in self._runners.values() if isinstance(runner, Segments) for s in runner.structures}
        for structure in self._compiled.keys() - used:
            del self._compiled[structure]

    def _promise(self, program: Program, name: str, tape: Recording) -> Tensor:
        shape = local_shape(program, name, self._rank)
        return None if 0 in shape else tape.given(name, (shape, program.values[name].dtype))


class _Promised(Constants):
    """Constants that are there already, as promises on a tape."""

    def __init__(self, constants: Constants, tape: Recording) -> None:
        self._given, self._tape = constants, tape

    def keep(self, key: Key, make: Callable[[], Tensor]) -> Tensor:
        return self._promise(self._given[key])

    def operand(self, name: str, transposed: bool) -> Tensor:
        return self._promise(self._given.operand(name, transposed))

    def _promise(self, value: Tensor) -> Tensor:
        if isinstance(value, Rows):
            return Rows(self._tape.constant(value.weight))
        return None if value is None else self._tape.constant(value)
