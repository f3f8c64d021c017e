"""The local primitives on PyTorch tensors (CPU)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
    "bool": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


# in, out, made of nothing


def from_numpy(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def to_numpy(x: Tensor) -> npt.NDArray[np.generic]:
    return np.asarray(x.numpy())


def full(shape: Sequence[int], value: float, dtype: str) -> Tensor:
    return torch.full(tuple(shape), value, dtype=_DTYPES[dtype])


def arange(start: int, stop: int, dtype: str) -> Tensor:
    return torch.arange(start, stop, dtype=_DTYPES[dtype])


def shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


def dtype(x: Tensor) -> str:
    return _NAMES[x.dtype]


def cast(x: Tensor, dtype: str) -> Tensor:
    return x.to(_DTYPES[dtype])


# element by element, broadcasting

add = torch.add
sub = torch.sub
mul = torch.mul
pow = torch.pow
maximum = torch.maximum
minimum = torch.minimum
neg = torch.neg
abs = torch.abs
exp = torch.exp
log = torch.log
sqrt = torch.sqrt
tanh = torch.tanh
sigmoid = torch.sigmoid
erf = torch.erf
equal = torch.eq
less = torch.lt
logical_and = torch.logical_and
logical_not = torch.logical_not
where = torch.where


def div(x: Tensor, y: Tensor) -> Tensor:
    """Divide. The quotient of integers is an integer, as in ONNX."""
    return torch.div(x, y) if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


# shape


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.reshape(tuple(shape))


def transpose(x: Tensor, perm: Sequence[int]) -> Tensor:
    return x.permute(tuple(perm))


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.expand(tuple(shape))


def concat(xs: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(xs), dim)


def slice(x: Tensor, dim: int, start: int, stop: int) -> Tensor:
    return x.narrow(dim, start, stop - start)


# contraction, reduction, selection

matmul = torch.matmul


def reduce_sum(x: Tensor, dims: Sequence[int], keep: bool) -> Tensor:
    return torch.sum(x, tuple(dims), keepdim=keep, dtype=x.dtype)


def reduce_max(x: Tensor, dims: Sequence[int], keep: bool) -> Tensor:
    return torch.amax(x, tuple(dims), keepdim=keep)


def take(x: Tensor, ids: Tensor, dim: int) -> Tensor:
    rows = torch.index_select(x, dim, ids.reshape(-1))
    return rows.reshape(*x.shape[:dim], *ids.shape, *x.shape[dim + 1 :])


def take_along(x: Tensor, ids: Tensor, dim: int) -> Tensor:
    return torch.gather(x, dim, ids)


def topk(x: Tensor, k: int, dim: int) -> tuple[Tensor, Tensor]:
    """Return the k largest. `torch.topk` does not order equal values; arg-max (the first of equals) and a stable sort do."""
    if k == 1:
        values, ids = torch.max(x, dim, keepdim=True)
        return values, ids
    values, ids = torch.sort(x, dim=dim, descending=True, stable=True)
    return values.narrow(dim, 0, k), ids.narrow(dim, 0, k)


# in place


def update(x: Tensor, rows: Tensor, starts: Tensor, dim: int) -> Tensor:
    size = rows.shape[dim]
    for entry, start in enumerate(starts.tolist()):
        x[entry].narrow(dim - 1, start, size).copy_(rows[entry])
    return x
