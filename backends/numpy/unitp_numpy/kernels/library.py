"""The compiled kernels: made once for a processor by numba, kept in the user's cache, and loaded by llvmlite in 60 ms.

numba takes 0.8 s to import, and up to 20 s to compile the kernels of a type. So it runs in a process of its own
(`unitp_numpy.kernels.build`), which writes an object file; a rank only links that. The file's name has a hash of all that
it depends on: the kernels' source, the versions of numba and llvmlite, and the processor.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

DTYPES = ("float32", "float64")
SECONDS = 20
"""About the seconds that it takes to compile the kernels of a type."""
ERRORS = (
    *("NRT_Free", "NRT_MemInfo_call_dtor", "numba_do_raise", "numba_gil_ensure", "numba_gil_release"),
    *("numba_runtime_build_excinfo_struct", "numba_unpickle"),
)
"""Functions of numba that compiled code would call to raise errors. Kernels never raise, so the functions need not exist."""

Run = Callable[[int, int], None]
"""`run(address, rows)` carries out the rows of a table that begins at an address."""


class Missing(Exception):  # noqa: N818  (the name says what is wrong)
    """The kernels cannot be used here; the message is the reason."""


class NotInstalled(Missing):
    """numba is not installed."""


class Compiled(msgspec.Struct):
    """The content of an object file: machine code, and the name of its function."""

    name: str
    code: bytes


def versions() -> str:
    """Return the versions that compiled code depends on. Raises NotInstalled without numba."""
    try:
        return f"numba {version('numba')} llvmlite {version('llvmlite')}"
    except PackageNotFoundError:
        raise NotInstalled("numba is not installed") from None


def folder() -> Path:
    """Return the folder of compiled kernels, in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return Path(cache if os.path.isabs(cache) else os.path.expanduser("~/.cache")) / "unitp" / "kernels"


def path(dtype: str) -> Path:
    """Return the object file of a type, on this processor. Raises NotInstalled without numba."""
    here = Path(__file__).parent
    what = blake2b(f"{versions()} {sys.version_info[:2]} {dtype} {processor()}".encode(), digest_size=12)
    for source in ("source.py", "products.py", "widening.py", "table.py", "build.py"):
        what.update((here / source).read_bytes())
    return folder() / f"{dtype}-{what.hexdigest()}.kernels"


@lru_cache
def processor() -> str:
    """Return the name and the features of the processor, as Linux reports them."""
    wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return "".join(dict.fromkeys(line for line in file if line.startswith(wanted)))


def prepare(python: str, environment: Mapping[str, str], say: Callable[[str], None]) -> str:
    """Compile the kernels that the ranks will load, if they are missing. Return why ranks will run without kernels, or "".

    python        the interpreter of the ranks
    environment   what they inherit; it has none of numba's variables, which would change the machine code
    say           called with a line before kernels are compiled

    If numba is not installed, the answer is "": it is an optional extra.
    """
    if python != sys.executable:
        command = [python, "-P", "-m", "unitp_numpy.kernels.library"]
        return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True).stdout.strip()
    try:
        if wanted := missing():
            say(f"compiling kernels for this processor, once ({SECONDS} s)")
            make(wanted, environment)
    except NotInstalled:
        return ""
    except Missing as error:
        return f"numpy runs without compiled kernels, at about half the speed: {error}"
    return ""


def missing() -> list[str]:
    """Return the types whose kernels are still to be compiled. Raises NotInstalled if numba is not installed."""
    return [dtype for dtype in DTYPES if _compiled(path(dtype)) is None]


def make(dtypes: Sequence[str], environment: Mapping[str, str]) -> None:
    """Compile the kernels of these types into the user's cache, side by side. Raises Missing with the reason if that fails."""
    with _locked():
        running = [(dtype, _compiler(dtype, environment)) for dtype in dtypes if _compiled(path(dtype)) is None]
        failed = [(dtype, text) for dtype, process in running if (text := _outcome(process))]
    if failed:
        raise Missing(f"numba cannot compile those of {failed[0][0]}: {failed[0][1]}")


def _compiler(dtype: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a process that compiles the kernels of a type. It does not import modules from the current folder."""
    command = [sys.executable, "-P", "-m", "unitp_numpy.kernels.build", dtype, str(path(dtype))]
    return subprocess.Popen(
        command,
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _outcome(process: subprocess.Popen[str]) -> str:
    """Wait for a compiler. Return the last line of its errors if it failed, else ""."""
    _, complaint = process.communicate()
    return (complaint.strip().splitlines() or ["no reason is given"])[-1] if process.returncode else ""


@contextmanager
def _locked() -> Iterator[None]:
    """Hold a lock, so that only one process compiles at a time. Raises Missing if the cache cannot be written."""
    try:
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Missing(f"{folder()} cannot be written ({error.strerror})") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _compiled(file: Path) -> Compiled | None:
    """Return the content of an object file; None if it is missing or damaged, or somebody else than this user could have written it."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as opened:
            about = os.fstat(opened.fileno())
            if about.st_uid != os.geteuid() or about.st_mode & 0o022:
                return None
            return msgspec.msgpack.decode(opened.read(), type=Compiled)
    except (OSError, msgspec.MsgspecError):
        return None


@lru_cache
def load(dtype: str) -> Run:
    """Return the kernels of a type. Raises Missing if they are not compiled, or numba is not installed."""
    compiled = _compiled(path(dtype))
    if compiled is None:
        raise Missing(f"there are no compiled kernels in {folder()}")
    engine = _engine()
    import llvmlite.binding as llvm

    engine.add_object_file(llvm.ObjectFileRef.from_data(compiled.code))
    engine.finalize_object()
    return ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(engine.get_function_address(compiled.name))


@lru_cache
def _engine() -> Any:
    """Return LLVM's linker, which lives as long as the process."""
    import llvmlite.binding as llvm

    never = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
    for name in ERRORS:
        llvm.add_symbol(name, never)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)


if __name__ == "__main__":
    print(prepare(sys.executable, os.environ, lambda text: None))
