"""Settings as a stranger gives them: a folder's file, a home, an environment, flags.

Whatever is accepted is compared with rules that are written out here once more: which source counts, what type a value has, and
that no interpreter and no variable of ranks comes from anything but the user's own file or `UNITP_BACKENDS_<NAME>_PYTHON`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostile import EVERYTHING, NAMES, harmless

from unitp import cli
from unitp.config import DEFAULTS, settings
from unitp.texts import toml_key, toml_text

NAME = "settings"

WORD = EVERYTHING.replace("\0", "")
"""What an environment variable can hold."""

File = bytes | str | None
"""The bytes of a file; a word for what is not a regular file; None: it is not there."""


@dataclass(frozen=True)
class Input:
    """`wanted`: values and where they come from, where everything is as it should be."""

    kind: str
    project: File
    own: File
    environment: dict[str, str]
    flags: dict[str, Any]
    home: str = "HOME"
    wanted: dict[str, tuple[Any, str]] | None = None
    folder: Path = field(default_factory=Path)

    @property
    def harmless(self) -> bool:
        return self.wanted is not None


LEGAL: dict[str, tuple[Any, ...]] = {
    "backend": ("numpy", "torch", "x", WORD),
    "mesh": ("tp=2", "dp=2,tp=2", ""),
    "machine": ("h100-nvlink", "a b.toml", NAMES["markup"]),
    "dtype": ("float32", "float64"),
    "weights": ("float32", "bfloat16", "float16"),
    "isolation": ("auto", "require", "off"),
    "transport": ("auto", "native", "mpi", WORD),
    "context": (0, 1, 4096),
    "threads": (1, 4, 4096),
    "port": (0, 1, 65535),
    "stall_s": (0.1, 1.0, 7, 1e9),
}
ODD: tuple[str, ...] = (
    *(
        "true",
        "-1",
        "0",
        "1.5",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "9" * 30,
        "9" * 5000,
        "0x" + "f" * 6000,
        "0b1",
        "1_0",
        "07",
    ),
    *("[]", "{}", "[[[]]]", "[" * 3000, "{a=" * 3000, "[1," * 900 + "1" + "]" * 900, "{a = {b = {c = 1}}}"),
    *(
        "''",
        '""',
        '"\\u0000"',
        '"\\uD800"',
        "'''x'''",
        '"""x\ny"""',
        '"' + "x" * 9000 + '"',
        "nil",
        "=",
        "#",
        "\x00",
        "\x1b[31m",
    ),
    *("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "\udcff"),
)
KINDS = ("legal", "values", "bytes", "tables", "no file", "environment", "flags")
NO_FILES = ("fifo", "folder", "loop", "zeros", "sparse", "dangling", "unreadable", "socket")


def one(rng: random.Random, folder: Path) -> Input:
    kind = rng.choices(KINDS, (20, 25, 20, 15, 8, 14, 8))[0]
    if kind == "legal":
        return legal(rng, folder)
    project: File = text_of(rng, values(rng)).encode(errors="surrogateescape")
    own: File = None
    environment: dict[str, str] = {}
    flags: dict[str, Any] = {}
    home = rng.choice(("HOME", "HOME", "XDG_CONFIG_HOME"))
    if kind == "bytes":
        calm = {name: literal(rng.choice(LEGAL[name])) for name in rng.sample(list(LEGAL), 3)}
        project = damaged(rng, text_of(rng, calm).encode())
    if kind == "tables":
        project = tables(rng).encode(errors="surrogateescape")
    if kind == "no file":
        project = rng.choice(NO_FILES)
    if kind == "environment":
        project, environment = None, variables(rng)
        home = rng.choice(("HOME", "relative", "empty", "none", "here"))
    if kind == "flags":
        project, flags = None, {name: rng.choice(FLAGS) for name in rng.sample(list(DEFAULTS), 2)}
    if kind != "environment" and rng.random() < 0.4:  # the same in the user's own file
        project, own = None, project
    elif rng.random() < 0.1:
        environment["UNITP_CONFIG"] = rng.choice(
            (
                "unitp.toml",
                "./unitp.toml",
                ".",
                "/",
                "absent",
                "x" * 300,
                "x/" * 3000,
                "/dev/null",
                "/dev/zero",
                "\udcff",
            )
        )
    return Input(kind, project, own, environment, flags, home, None, folder)


FLAGS: tuple[Any, ...] = (
    *(None, 0, -1, 10**30, 2**63, 16**6000, True, 1.5, float("nan"), float("inf")),
    *("", "x", "\0", "\udcff", EVERYTHING, "9" * 5000, (), [], {}, b"x"),
)


def legal(rng: random.Random, folder: Path) -> Input:
    """Files, environment and flags in order, and what follows from them."""
    sources: dict[str, dict[str, Any]] = {
        source: {name: rng.choice(LEGAL[name]) for name in LEGAL if rng.random() < 0.4} for source in ("flag", "variable", "project", "own")
    }  # fmt: skip
    sources["variable"] = {
        name: value for name, value in sources["variable"].items() if str(value) and "\udcff" not in str(value)
    }
    if sources["project"].get("isolation") == "off":  # which a user alone may say
        del sources["project"]["isolation"]
    home, own_path = (
        ("HOME", ".config/unitp/unitp.toml") if rng.random() < 0.5 else ("XDG_CONFIG_HOME", "unitp/unitp.toml")
    )
    wanted: dict[str, tuple[Any, str]] = {}
    for name, default in DEFAULTS.items():
        origins = {
            "flag": "flag",
            "variable": f"UNITP_{name.upper()}",
            "project": "unitp.toml",
            "own": str(folder / "home" / own_path),
        }
        found = next(
            ((sources[s][name], o) for s, o in origins.items() if name in sources.get(s, {})), (default, "default")
        )
        wanted[name] = (type(default)(found[0]), found[1])
    own = text_of(rng, {name: literal(value) for name, value in sources["own"].items()})
    variable = {f"UNITP_{name.upper()}": str(value) for name, value in sources["variable"].items()}
    if rng.random() < 0.5:
        python, place = rng.choice(("/opt/python", "python3", f"/{WORD}")), str(folder / "home" / own_path)
        own += f"[backends.torch]\npython = {toml_text(python)}\n[backends.torch.env]\nLD_PRELOAD = {toml_text(WORD)}\n"
        wanted["backends.torch.python"] = (python, place)
        wanted["backends.torch.env.LD_PRELOAD"] = (WORD, place)
    if rng.random() < 0.3:
        variable["UNITP_BACKENDS_MXNET_PYTHON"] = "./venv/bin/python"
        wanted["backends.mxnet.python"] = ("./venv/bin/python", "UNITP_BACKENDS_MXNET_PYTHON")
    project = text_of(rng, {name: literal(value) for name, value in sources["project"].items()})
    flags = {name: type(DEFAULTS[name])(value) for name, value in sources["flag"].items()}
    return Input("legal", project.encode(), own.encode(), variable, flags, home, wanted, folder)


def literal(value: Any) -> str:
    return toml_text(value) if isinstance(value, str) else repr(value)


def values(rng: random.Random) -> dict[str, str]:
    """Settings with odd values, in TOML."""
    names = rng.sample(list(DEFAULTS), rng.randrange(1, 4))
    return {name: rng.choice(ODD) if rng.random() < 0.7 else literal(rng.choice(LEGAL[name])) for name in names}


def text_of(rng: random.Random, given: dict[str, str]) -> str:
    lines = [f"{name} = {value}" for name, value in given.items()]
    rng.shuffle(lines)
    return "".join(f"{line}\n" for line in lines)


def tables(rng: random.Random) -> str:
    """What a file may say of backends: interpreters, variables, and what is none."""
    name = rng.choice(("torch", "mxnet", "", "a.b", *NAMES.values(), "x" * 3000))
    python = rng.choice(("/opt/python", "./python", "../x", "python3", "", "\0", "-c", *NAMES.values(), "/" * 5000))
    variable = rng.choice(("LD_PRELOAD", "PATH", "UNITP_SESSION", "a=b", "", "1x", "\0", *NAMES.values()))
    key = toml_key(name)
    return rng.choice(
        (
            f"[backends.{key}]\npython = {toml_text(python)}\n",
            f"[backends.{key}.env]\n{toml_key(variable)} = {toml_text(python)}\n",
            f"[backends.{key}]\npython = {toml_text(python)}\nenv = {{ {toml_key(variable)} = {toml_text(name)} }}\n",
            f"backends = {rng.choice(ODD)}\n",
            f"[backends]\n{key} = {rng.choice(ODD)}\n",
            f"[backends.{key}]\npython = {rng.choice(ODD)}\n",
            f"[backends.{key}]\nenv = {rng.choice(ODD)}\n",
            f"[backends.{key}.env]\n{toml_key(variable)} = {rng.choice(ODD)}\n",
            f"[[backends.{key}]]\npython = 'x'\n",
            f"[backends.{key}]\n[backends.{key}]\n",
            f"[backends.{key}]\npython = '/a'\npython = '/b'\n",
            f"{toml_key(name)} = 1\n",
            f"[{toml_key(name)}]\nx = 1\n",
            f"{'a.' * rng.choice((10, 900, 7000))}a = 1\n",
            f"mesh{'.a' * rng.choice((10, 900, 7000))} = 1\n",
            f"[{'a.' * 900}a]\n" * 3,
        )
    )


def damaged(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data or b"x")
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(7):
            case 0 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 1:
                del found[at:]
            case 2:
                found[at:at] = rng.randbytes(rng.choice((1, 2, 50)))
            case 3:
                found[at:at] = found[:at]
            case 4:
                found[:0] = rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\r", b"\n" * 999))
            case 5:
                found = bytearray(
                    bytes(found).decode(errors="replace").encode(rng.choice(("utf-16", "utf-32", "utf-8")))
                )
            case _:
                found += bytes(found) * rng.choice((1, 3, 200))
    return bytes(found[: 3 * 2**20])


def variables(rng: random.Random) -> dict[str, str]:
    names = [f"UNITP_{name.upper()}" for name in DEFAULTS]
    names += [f"UNITP_BACKENDS_{name}_PYTHON" for name in ("TORCH", "", "\u0130", "X" * 5000)]
    names += ["UNITP_MESHH", "UNITP_", "UNITP_" + "X" * 5000, "UNITP_CONFIG", "UNITP_SESSION"]
    return {name: rng.choice(WORDS) for name in rng.sample(names, rng.randrange(1, 4))}


WORDS = (
    *("", "x", "0", "-1", "1.5", "1e999", "nan", "9" * 5000, "\u0663", " 3 ", "0x10", "1_0", "\udcff"),
    *(name.replace("\0", "") for name in NAMES.values()),
)


def lay(path: Path, what: File) -> None:
    """Put a file, or what is none, in its place."""
    if what is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(what, bytes):
        path.write_bytes(what)
    elif what == "sparse":
        with path.open("wb") as file:
            file.truncate(3 * 2**30)
    elif what == "unreadable":
        path.write_bytes(b"backend = 'torch'\n")
        path.chmod(0)
    elif what == "socket":
        os.mknod(path, 0o140600)
    elif what in ("fifo", "folder"):
        (os.mkfifo if what == "fifo" else os.mkdir)(path)
    else:
        path.symlink_to({"loop": path.name, "zeros": "/dev/zero", "dangling": "absent"}[what])


def feed(given: Input) -> bool:
    """Read the settings; returns whether they were checked to be right. Raises UnitpError where they are refused."""
    base, home = given.folder / "here", given.folder / "home"
    for folder in (base, home):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    lay(base / "unitp.toml", given.project)
    lay(home / (".config/unitp/unitp.toml" if given.home == "HOME" else "unitp/unitp.toml"), given.own)
    homes: dict[str, dict[str, str]] = {
        "HOME": {"HOME": str(home)},
        "XDG_CONFIG_HOME": {"XDG_CONFIG_HOME": str(home)},
        "relative": {"HOME": "home"},
        "here": {"HOME": "."},
        "empty": {"HOME": "", "XDG_CONFIG_HOME": ""},
        "none": {},
    }
    environment = {**given.environment, **homes[given.home]}
    before = os.getcwd()
    os.chdir(base)
    try:
        shown = shown_by_the_command(environment) if given.wanted is None and not given.flags else None
        found = settings(given.flags, environment)
    finally:
        os.chdir(before)
    for name, default in DEFAULTS.items():
        assert type(found[name].value) is type(default), (name, found[name])
    for name, setting in found.items():
        if name.startswith("backends."):
            assert setting.origin.startswith((str(home), "UNITP_BACKENDS_")), setting
    if given.wanted is not None:
        assert {n: (s.value, s.origin) for n, s in found.items()} == {
            n: given.wanted.get(n, (s.value, s.origin)) for n, s in found.items()
        }
        assert set(given.wanted) <= set(found)
    if shown is not None:
        assert shown == {n: {"value": s.value, "origin": s.origin} for n, s in found.items()}
    return given.wanted is not None


def shown_by_the_command(environment: dict[str, str]) -> Any:
    """What `unitp config show --json` prints; None where it refuses, which must be said in words that command no terminal."""
    out, err = io.StringIO(), io.StringIO()
    saved = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.call(["config", "show", "--json"])
    finally:
        os.environ.clear()
        os.environ.update(saved)
    assert code in (0, 2), (code, err.getvalue())
    assert harmless(out.getvalue()), out.getvalue()
    assert harmless(err.getvalue().replace("\t", " ")), err.getvalue()
    assert "Traceback" not in err.getvalue()
    return json.loads(out.getvalue()) if code == 0 else None
