"""How another transport than gloo carries PyTorch's tensors: on the memory that they have, which NumPy shares with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitp.engine.transport import Buffered, Buffers, Memory


def view(x: Tensor) -> Memory:
    """The array in a tensor's memory. Where its elements do not lie in order, it is that of a copy."""
    found: Memory = x.contiguous().numpy()
    return found


def room(shape: tuple[int, ...], dtype: Any) -> Tensor:
    """A new tensor, of a NumPy dtype."""
    return torch.from_numpy(np.empty(shape, dtype))


def carried(buffers: Buffers) -> Buffered:
    """`unitp.engine.primitives.Collectives` over a transport."""
    return Buffered(buffers, view, room)
