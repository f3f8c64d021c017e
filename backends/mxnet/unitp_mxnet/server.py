"""A KVStore server, or its scheduler: it adds what workers push, and obeys no command but MXNet's own to begin and to end.

MXNet's server, which an import of MXNet becomes in a process of that role, unpickles what a command holds: an optimizer to
run on the server. Ranks send none, so whoever does is a stranger.
"""

from __future__ import annotations

import ctypes
import os
import sys

ROLE = "DMLC_ROLE"


def serve() -> None:
    """Serve until all ranks have left."""
    role, os.environ[ROLE] = os.environ[ROLE], "worker"  # so the import returns
    from unitp_mxnet.operators import mx

    os.environ[ROLE] = role
    store = mx.kv.create("dist")
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    mx.base.check_call(mx.base._LIB.MXKVStoreRunServer(store.handle, kind(refuse), None))


def refuse(command: int, body: bytes, handle: object) -> None:
    """What the server does with commands."""
    print(f"refused: command {command} of {len(body)} bytes", file=sys.stderr, flush=True)
