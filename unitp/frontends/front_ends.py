"""The hook through which front ends are found: built-in ones and those of plug-ins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from unitp.frontends.model import Model
from unitp.plugins.hooks import Hook, hookimpl, hookspec


class FrontEnd(msgspec.Struct, frozen=True):
    """A reader of models.

    name      a word for it, as in `gguf`
    about     what it reads, in words
    accepts   says whether this reader can read a path. It looks at the name and the kind of file, and reads little.
    load      returns the model at a path, and raises ModelError for what it cannot read or use.
    """

    name: str
    about: str
    accepts: Callable[[Path], bool]
    load: Callable[[Path], Model]


@hookspec
def unitp_front_ends() -> Sequence[FrontEnd]:
    """Return the readers of models that this plug-in adds. They are asked for paths that no built-in reader accepts."""
    return ()


class BuiltIn:
    """GGUF files, Hugging Face directories, and configs without weights."""

    @hookimpl
    def unitp_front_ends(self) -> Sequence[FrontEnd]:
        """Return the readers that come with unitp. They are imported when they are used."""
        return [
            FrontEnd("huggingface", "directories with config.json", _is_huggingface, _load_huggingface),
            FrontEnd("config", "config.json alone: plans without weights", _is_config, _load_config),
            FrontEnd("gguf", ".gguf files", _is_gguf, _load_gguf),
        ]


def _is_huggingface(path: Path) -> bool:
    return (path / "config.json").is_file()


def _load_huggingface(path: Path) -> Model:
    from unitp.frontends.huggingface import load_huggingface

    return load_huggingface(path)


def _is_config(path: Path) -> bool:
    return path.suffix == ".json" and not path.is_dir()


def _load_config(path: Path) -> Model:
    from unitp.frontends.huggingface import load_config

    return load_config(path)


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf" and not path.is_dir()


def _load_gguf(path: Path) -> Model:
    from unitp.frontends.gguf import load_gguf

    return load_gguf(path)


FRONT_ENDS: Hook[FrontEnd] = Hook("front end", unitp_front_ends, FrontEnd, [BuiltIn()])
