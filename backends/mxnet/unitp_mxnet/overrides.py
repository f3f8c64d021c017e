"""Hot operators on MXNet's own, for few calls; each equals its decomposition to rounding in the dtypes listed."""

from __future__ import annotations

from unitp.program.overrides import Overrides
from unitp.program.primitives import Primitives
from unitp_mxnet.operators import Tensor
from unitp_mxnet.primitives import Rows


def pack(p: Primitives, weight: Tensor, transposed: bool) -> tuple[Tensor, Tensor]:
    """A stored `[n, k]` is used as it is; a stored `[k, n]` is a plain right operand."""
    return (Rows(weight) if transposed else weight), weight


overrides = Overrides(pack)
