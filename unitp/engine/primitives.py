"""The local primitives that every backend provides for its framework's tensors, and the four collectives.

ONNX operators are written once, over these (`unitp.engine.operators`). The primitives follow NumPy: broadcasting,
`matmul`, truncation in casts. Callers never pass an empty tensor. Tensors are values: only `update` writes in place.
dtypes are NumPy names ("float32", "float64", "int64", "int32", "bool"). "Numbers" are floats or integers.
A dim argument is never negative. Primitives check nothing: what they ask of their arguments is the caller's duty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Tensor = Any


class Primitives(Protocol):
    """The operations on local tensors that the decompositions of operators are made of."""

    # in, out, made of nothing
    def from_numpy(self, array: npt.NDArray[np.generic]) -> Tensor:
        """A tensor of the shape, dtype and elements of `array`. It may share memory with `array`."""

    def to_numpy(self, x: Tensor) -> npt.NDArray[np.generic]:
        """An array of the shape, dtype and elements of `x`. It may share memory with `x`."""

    def full(self, shape: Sequence[int], value: float, dtype: str) -> Tensor:
        """A tensor of `shape` and `dtype`, every element of which is `value`. An empty shape gives a scalar."""

    def arange(self, start: int, stop: int, dtype: str) -> Tensor:
        """The numbers start, start + 1, ... stop - 1 in the number type `dtype`, of shape [stop - start]."""

    def shape(self, x: Tensor) -> tuple[int, ...]:
        """The sizes of the dims of `x`: () for a scalar."""

    def dtype(self, x: Tensor) -> str:
        """The NumPy name of the dtype of `x`, a tensor of any shape."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        """`x` in `dtype`, of the same shape. From float to integer it truncates toward zero; to bool, nonzero is true."""

    # element by element, broadcasting
    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y of two numbers of one dtype, in the broadcast shape and that dtype."""

    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        """x - y of two numbers of one dtype, in the broadcast shape and that dtype."""

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """x * y of two numbers of one dtype, in the broadcast shape and that dtype."""

    def div(self, x: Tensor, y: Tensor) -> Tensor:
        """x / y of two floats of one dtype, in the broadcast shape and that dtype."""

    def pow(self, x: Tensor, y: Tensor) -> Tensor:
        """x to the power of y, two floats of one dtype, in the broadcast shape and that dtype."""

    def maximum(self, x: Tensor, y: Tensor) -> Tensor:
        """The larger of two numbers of one dtype, in the broadcast shape and that dtype; NaN if either is NaN."""

    def minimum(self, x: Tensor, y: Tensor) -> Tensor:
        """The smaller of two numbers of one dtype, in the broadcast shape and that dtype; NaN if either is NaN."""

    def neg(self, x: Tensor) -> Tensor:
        """-x of a number, in the shape and dtype of `x`."""

    def abs(self, x: Tensor) -> Tensor:
        """|x| of a number, in the shape and dtype of `x`."""

    def exp(self, x: Tensor) -> Tensor:
        """e to the power of a float x, in the shape and dtype of `x`."""

    def log(self, x: Tensor) -> Tensor:
        """The natural logarithm of a float x, in the shape and dtype of `x`."""

    def sqrt(self, x: Tensor) -> Tensor:
        """The square root of a float x, in the shape and dtype of `x`."""

    def tanh(self, x: Tensor) -> Tensor:
        """The hyperbolic tangent of a float x, in the shape and dtype of `x`."""

    def sigmoid(self, x: Tensor) -> Tensor:
        """1 / (1 + exp(-x)) of a float x, in the shape and dtype of `x`. Large negative x gives 0."""

    def erf(self, x: Tensor) -> Tensor:
        """The error function of a float x, in the shape and dtype of `x`."""

    def equal(self, x: Tensor, y: Tensor) -> Tensor:
        """Whether x == y, for one dtype, as bool in the broadcast shape."""

    def less(self, x: Tensor, y: Tensor) -> Tensor:
        """Whether x < y, for two numbers of one dtype, as bool in the broadcast shape."""

    def logical_and(self, x: Tensor, y: Tensor) -> Tensor:
        """Whether both bools are true, as bool in the broadcast shape."""

    def logical_not(self, x: Tensor) -> Tensor:
        """Whether a bool is false, as bool in the shape of `x`."""

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """`x` where the bool `condition` is true, else `y`, in the broadcast shape of all three and the dtype of x and y."""

    # shape
    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The elements of `x`, row-major, in `shape`, which has as many elements. The dtype stays."""

    def transpose(self, x: Tensor, perm: Sequence[int]) -> Tensor:
        """`x` with its dims reordered: dim i of the result is dim `perm[i]` of `x`. The dtype stays."""

    def expand(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """`x` broadcast to `shape`, in its dtype. The result may share memory with `x`."""

    def concat(self, xs: Sequence[Tensor], dim: int) -> Tensor:
        """The tensors of one dtype joined along `dim`; their other dims are equal."""

    def slice(self, x: Tensor, dim: int, start: int, stop: int) -> Tensor:
        """The entries `start` to `stop` - 1 along `dim`, 0 <= start < stop <= size. The dtype stays."""

    # contraction, reduction, selection
    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """The matrix product [..., m, k] @ [..., k, n] -> [..., m, n] of two floats of one dtype; leading dims broadcast."""

    def reduce_sum(self, x: Tensor, dims: Sequence[int], keep: bool) -> Tensor:
        """The sum over `dims`, in the dtype of `x`. These dims have size 1 if `keep`, else they are removed."""

    def reduce_max(self, x: Tensor, dims: Sequence[int], keep: bool) -> Tensor:
        """The maximum over `dims`, in the dtype of `x`. These dims have size 1 if `keep`, else they are removed."""

    def take(self, x: Tensor, ids: Tensor, dim: int) -> Tensor:
        """The entries of `x` at `ids` (integers of any shape, in range) along `dim`: the shape of `ids` replaces `dim`."""

    def take_along(self, x: Tensor, ids: Tensor, dim: int) -> Tensor:
        """The entries of `x` at `ids` along `dim`, element by element, as `numpy.take_along_axis`.

        `ids` are integers in range, of the rank of `x` and equal to it in the other dims. The result has the shape
        of `ids` and the dtype of `x`.
        """

    def topk(self, x: Tensor, k: int, dim: int) -> tuple[Tensor, Tensor]:
        """The k largest along `dim`, largest first, and their places as int64; both have size k in `dim`.

        Of equal values the lowest place comes first. NaN is larger than any number, so that it is seen.
        """

    # in place
    def update(self, x: Tensor, rows: Tensor, starts: Tensor, dim: int) -> Tensor:
        """Write `rows` into `x` in place and return `x`: for each entry i of dim 0, from `starts[i]` along `dim` (>= 1) on.

        `rows` has the dtype and shape of `x`, except for a smaller or equal size of `dim`. `starts` has one integer for
        each entry of dim 0, and all rows fit.
        """


class Collectives(Protocol):
    """The collectives among the group of this rank along one mesh axis.

    All members pass equal shapes and dtypes. Lists have one entry per member, in the order of the group.
    """

    def all_reduce(self, x: Tensor, axis: str, reduction: str) -> Tensor:
        """The elementwise "sum" or "max" (`reduction`) over the group, in the shape and dtype of `x`, on every member."""

    def all_gather(self, x: Tensor, axis: str) -> list[Tensor]:
        """The tensors `x` of all members, each of the shape and dtype of `x`; a `unitp.engine.transport.Gathered` if they lie
        behind one another in one tensor.
        """

    def reduce_scatter(self, parts: Sequence[Tensor], axis: str) -> Tensor:
        """The sum over the group of the members' parts at this rank's place; the shape and dtype are those of one part."""

    def all_to_all(self, parts: Sequence[Tensor], axis: str) -> list[Tensor]:
        """The parts that the members send to this rank; part i of `parts` goes to member i. All have one shape and dtype."""
