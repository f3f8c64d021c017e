"""A network namespace for a session: its processes reach each other by loopback, and nothing outside reaches them.

This file is run by itself, with the standard library alone:

    python -I -S namespace.py                  make one, print "made" or why not, and keep it until standard input ends
    python -I -S namespace.py 5,6 COMMAND ...  enter the namespaces of these descriptors; become COMMAND

A user who may not make a network namespace may do so within a user namespace, if the kernel allows one. The user's
identity does not change there: files, processes and limits stay the same.
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
    """Move this process into a new network namespace with its loopback up. Raises OSError if the kernel refuses."""
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
    """Call a function of libc, because Python has these calls only from 3.12 on."""
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
