"""A network namespace of a session's own: its processes reach each other by loopback, and nothing else reaches them.

This file is run by itself, with the standard library alone:

    python -I -S namespace.py                  make one, say "made" or why not, and keep it until standard input ends
    python -I -S namespace.py 5,6 COMMAND ...  enter the namespaces that these descriptors stand for; become COMMAND

A user who may not make a network namespace may within a user namespace of his own, where the kernel lets him have one. Who
he is does not change there: his files, his processes and his limits stay his.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
SET_FLAGS, UP = 0x8914, 0x1
"""SIOCSIFFLAGS and IFF_UP (netdevice(7))."""


def make() -> None:
    """Move this process into a new network namespace, whose loopback is up. Raises OSError where that cannot be had."""
    try:
        _call("unshare", NEW_NETWORK)
    except PermissionError:
        user, group = os.getuid(), os.getgid()
        _call("unshare", NEW_USER | NEW_NETWORK)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        fcntl.ioctl(some, SET_FLAGS, struct.pack("16sH22x", b"lo", UP))


def enter(descriptors: list[int]) -> None:
    """Move this process into these namespaces, one after the other, and close the descriptors."""
    for descriptor in descriptors:
        _call("setns", descriptor, 0)
        os.close(descriptor)


def _call(name: str, *arguments: int) -> None:
    """Python has these calls from 3.12 on only."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def main(arguments: list[str]) -> None:
    if arguments:
        descriptors, *command = arguments
        enter([int(descriptor) for descriptor in descriptors.split(",")])
        os.execv(command[0], command)
    try:
        make()
    except OSError as error:
        print(f"{error.filename}: {error.strerror}" if error.filename else error.strerror, flush=True)
        return
    print("made", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
