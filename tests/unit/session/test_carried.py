"""A program whose collectives a transport cannot carry is refused before ranks see it, with all dtypes at once."""

from __future__ import annotations

import re

import pytest
from carried import collectives

from unitp.errors import BackendError
from unitp.mesh import Mesh
from unitp.plans import unsplit
from unitp.plugins.transports import Carrier
from unitp.program.lower import lower
from unitp.session.carried import require_carried

FEW = Carrier("few", "Few", "few:processes", dtypes=("float32", "float64"))


def test_a_dtype_that_is_not_carried_is_refused_with_the_instruction_that_moves_it() -> None:
    case = collectives("tp=2")
    program = lower(case.graph, case.plan, "main", {}, dtype="float32")
    with pytest.raises(BackendError, match=re.escape("transport few does not carry int64, int32, bool")) as caught:
        require_carried(program, FEW)
    assert caught.value.hint == "It carries float32, float64. Give another --transport."
    number = int(re.search(r"instruction (\d+) moves int64", caught.value.message)[1])  # type: ignore[index]
    assert program.values[program.instructions[number].input].dtype == "int64"  # type: ignore[union-attr]


def test_a_transport_that_carries_everything_and_a_rank_alone_are_not_asked() -> None:
    case = collectives("tp=2")
    require_carried(lower(case.graph, case.plan, "main", {}), Carrier("native", "gloo", "x:processes"))
    alone = unsplit(case.graph, [phase.phase for phase in case.plan.phases])
    assert alone.mesh == Mesh()
    require_carried(lower(case.graph, alone, "main", {}), FEW)
