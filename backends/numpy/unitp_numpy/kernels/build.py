"""Compiles the kernels of a type: `python -m unitp_numpy.kernels.build DTYPE FILE`. Only this process imports numba."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import numpy as np

from unitp_numpy.kernels.library import Compiled
from unitp_numpy.kernels.source import machine


def build(dtype: str) -> Compiled:
    """Compile the kernels of a type."""
    function = machine(np.dtype(dtype).type)
    code: bytes = function._library.serialize_using_object_code()[2][0]
    return Compiled(function.native_name, code)


def main(dtype: str, file: str) -> None:
    """Compile the kernels of a type into a file, which appears in one step, so that nobody reads half of it."""
    data = msgspec.msgpack.encode(build(dtype))
    part = Path(f"{file}.{os.getpid()}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(data)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
