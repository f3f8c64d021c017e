"""The process of a rank or server (`--role`), and `describe`. Interpreters run `unitp.entry`, which calls `main` here.

It connects before it imports a framework, so that the driver knows from the start which processes are there. It ends as
soon as the driver's end of the connection is closed, whatever it is doing: a killed driver leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from unitp.engine.engine import Engine
from unitp.errors import BackendError
from unitp.plugins import discover, transports
from unitp.ranks.environment import FOLDER, FOLDER_PREFIX, own_number
from unitp.ranks.interpreters import describe
from unitp.ranks.progress import Activity, Page, PageProgress
from unitp.ranks.serve import Reserve, Worker, report
from unitp.wire.channel import Channel, WireError, for_worker
from unitp.wire.greeting import SOCKET, introduce, read_key
from unitp.wire.messages import Done, Request, Start

PATIENCE_S = 30.0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m unitp.worker", description=__doc__.partition("\n")[0])
    parser.add_argument("--role", default="worker")
    parser.add_argument("--plugin", default="", metavar="MODULE", help="the plug-in that describes the backend")
    parser.add_argument("what", nargs="?", choices=["describe"], help="print this interpreter's backends as JSON")
    given = parser.parse_args(arguments)
    if given.what == "describe":
        print(msgspec.json.encode(describe()).decode())
        return
    if FOLDER not in os.environ:
        parser.error("a worker is started by unitp's launcher, which names the folder of its session")
    serve(given.role, given.plugin)


def serve(role: str, plugin: str) -> None:
    """Join the session that this process's environment names, and serve it to its end."""
    number, folder = own_number(os.environ), Path(os.environ[FOLDER])
    try:
        channel = for_worker(connected(folder / SOCKET))
        introduce(channel, read_key(folder), role, number)
        start = channel.receive()
    except (ConnectionError, TimeoutError, FileNotFoundError, WireError):
        leave(folder)  # the driver is gone; whatever else the system refuses is told in the log
    if not isinstance(start, Start):
        raise WireError(f"the driver began with {type(start).__name__} instead of Start")
    threading.Thread(target=end_with_driver, args=(channel, folder), name="end with the driver", daemon=True).start()
    name = f"{'rank' if role == 'worker' else role}{number}"
    log_to(folder / f"{name}.log")
    page = Page(folder / f"{name}.page")
    reserve = Reserve()
    page.keep_beating()
    try:
        if role == "worker":
            progress = PageProgress(page)
            engine = connect(start, plugin, number, page, progress)
            channel.send(Done())
            Worker(number, channel, engine, page, folder, progress).work()
        else:
            page.enter(Activity.SERVING)
            imported(discover.described(start.backend, plugin).server)()
    except BaseException as error:
        report(channel, error, reserve)
        raise
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the engine is closed: nothing that frameworks do at exit is needed, and some of it waits for others


def connected(path: Path) -> socket.socket:
    """A connection to the driver."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.settimeout(PATIENCE_S)
    found.connect(os.fspath(path))
    found.settimeout(None)
    return found


def connect(start: Start, plugin: str, rank: int, page: Page, progress: PageProgress) -> Engine:
    """Import the backend's engine and join the group of ranks, over its own transport or over another."""
    page.enter(Activity.IMPORTING)
    join: Callable[..., Engine] = imported(discover.described(start.backend, plugin).engine)
    page.enter(Activity.JOINING)
    if start.transport in (transports.ALONE, transports.NATIVE):
        return join(rank, start.mesh, progress)
    buffers = imported(transports.described(start.transport, start.plugin).join)(rank, start.mesh)
    return join(rank, start.mesh, progress, buffers)


def imported(path: str) -> Callable[..., Any]:
    """A "module:function" of a backend or a transport. Raises BackendError if something that it imports is missing here."""
    try:
        return discover.resolve(path)
    except ImportError as error:
        raise BackendError(
            f"the backend cannot be imported in {sys.executable}: {error}", hint="`unitp doctor` tells what is missing."
        ) from error


def end_with_driver(channel: Channel[Request], folder: Path) -> None:
    """End this process when the driver closes the connection or dies."""
    channel.wait_for_end()
    leave(folder)


def leave(folder: Path) -> NoReturn:
    """End this process, whose driver is gone, and remove the session's folder if it still exists."""
    if folder.name.startswith(FOLDER_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def log_to(path: Path) -> None:
    """From now on, write what this process and its libraries print to a file of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


if __name__ == "__main__":
    main()
