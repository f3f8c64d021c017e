"""A KVStore server, or its scheduler: it adds what workers push, and obeys only the commands of MXNet to begin and to end.

In a process with that role, importing MXNet starts its own server, which unpickles the content of commands: an optimizer to run on
the server. Ranks never send such a command, so only a stranger could.
"""

from __future__ import annotations

import ctypes
import os
import sys

ROLE = "DMLC_ROLE"


def serve() -> None:
    """Serve until all ranks have left."""
    role, os.environ[ROLE] = os.environ[ROLE], "worker"  # so that the import returns
    from unitp_mxnet.operators import mx

    os.environ[ROLE] = role
    store = mx.kv.create("dist")
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    mx.base.check_call(mx.base._LIB.MXKVStoreRunServer(store.handle, kind(refuse), None))


def refuse(command: int, body: bytes, handle: object) -> None:
    """Report a command in the log, and ignore it."""
    print(f"refused: command {command} of {len(body)} bytes", file=sys.stderr, flush=True)
