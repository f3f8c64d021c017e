"""Front ends turn models into graphs. `load` takes a known name, a `.gguf` file, a Hugging Face directory, or a `config.json`."""

from __future__ import annotations

import os
from pathlib import Path

from unitp.errors import ModelError
from unitp.frontends.model import Decoder, Model

__all__ = ["Decoder", "Model", "load"]


def load(name: str | Path) -> Model:
    """The model that `name` refers to: a known name, a `.gguf` file, a directory with `config.json`, or that file alone.

    It reads metadata only; ranks read the weights. A model without weights can be planned but not run. Raises ModelError for
    an unknown name, a corrupt file, or a model that needs what unitp does not implement.
    """
    path = Path(name)
    if os.path.isdir(path):
        from unitp.frontends.huggingface import load_huggingface

        return load_huggingface(path)
    if path.suffix == ".json" and os.path.lexists(path):
        from unitp.frontends.huggingface import load_config

        return load_config(path)
    from unitp.frontends.gguf import load_gguf

    if path.suffix == ".gguf":
        return load_gguf(path)
    if os.path.lexists(path):
        raise ModelError(f"{path} is neither a .gguf file nor a directory with config.json nor a config.json")
    from unitp.frontends.configs import CONFIGS, known_config
    from unitp.frontends.known_models import find

    if str(name) in CONFIGS:
        return known_config(str(name))

    return load_gguf(find(str(name)), str(name))
