"""How another transport than RING carries TensorFlow's tensors: a NumPy function inside the tf.function that computes them.

A program stays one function for each structure. Cut at its collectives, into functions with calls between them, it takes
573 us more a collective; a NumPy function inside takes 290, the collective included. TensorFlow lends it the tensor's own memory.
Each call is tied to the one before by a control dependency, so that all ranks run them in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from unitp.engine.transport import Buffers, Carried, Memory, contiguous

Tensor = Any


class CarriedCollectives:
    """`unitp.engine.primitives.Collectives` over a transport, eagerly and while a tf.function is traced."""

    def __init__(self, buffers: Buffers) -> None:
        self._carried = Carried(buffers, contiguous, np.empty)
        self.tally = self._carried.tally
        self._last: Tensor = None

    def begin(self) -> None:
        """A new tf.function is traced: nothing in it comes before."""
        self._last = None

    def all_reduce(self, x: Tensor, axis: str, reduction: str) -> Tensor:
        return self._run(partial(self._carried.all_reduce, axis=axis, reduction=reduction), x, x.shape)

    def all_gather(self, x: Tensor, axis: str) -> list[Tensor]:
        shape = (self._carried.sizes[axis], *x.shape)
        return list(tf.unstack(self._run(partial(self._carried.all_gather, axis=axis), x, shape)))

    def reduce_scatter(self, parts: Sequence[Tensor], axis: str) -> Tensor:
        fn = partial(self._carried.reduce_scatter, axis=axis)
        return self._run(fn, tf.stack(list(parts)), parts[0].shape)

    def all_to_all(self, parts: Sequence[Tensor], axis: str) -> list[Tensor]:
        given = tf.stack(list(parts))
        return list(tf.unstack(self._run(partial(self._carried.all_to_all, axis=axis), given, given.shape)))

    def _run(self, fn: Callable[[Memory], Memory], x: Tensor, shape: Sequence[int]) -> Tensor:
        """One collective on the memory of `x`, after the one before."""
        if tf.executing_eagerly():
            return tf.constant(fn(x.numpy()))
        with tf.control_dependencies([] if self._last is None else [self._last]):
            out = tf.numpy_function(fn, [x], x.dtype)
        out.set_shape(shape)
        self._last = out
        return out

    def close(self) -> None:
        self._carried.close()
