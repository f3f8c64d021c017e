"""Models into graphs: `load` takes a known name, a `.gguf` file or a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path

from unitp.errors import ModelError
from unitp.frontends.model import Decoder, Model

__all__ = ["Decoder", "Model", "load"]


def load(name: str | Path) -> Model:
    """The model that `name` stands for: a known name, a `.gguf` file, or a directory with `config.json`.

    Reads metadata only; ranks read weights. Raises ModelError for an unknown name, a corrupt file, or a model that needs
    what unitp does not implement.
    """
    path = Path(name)
    if path.is_dir():
        from unitp.frontends.huggingface import load_huggingface

        return load_huggingface(path)
    from unitp.frontends.gguf import load_gguf

    if path.suffix == ".gguf":
        return load_gguf(path)
    if path.exists():
        raise ModelError(f"{path} is neither a .gguf file nor a directory with config.json")
    from unitp.frontends.registry import find

    return load_gguf(find(str(name)), str(name))
