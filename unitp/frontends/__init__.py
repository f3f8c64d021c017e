"""Front ends turn models into graphs. `load` takes a known name, or a path that a front end accepts (`unitp.frontends.front_ends`)."""

from __future__ import annotations

import os
from pathlib import Path

from unitp.errors import ModelError, UnitpError, from_signal
from unitp.frontends.front_ends import FRONT_ENDS, FrontEnd
from unitp.frontends.model import Decoder, Model
from unitp.texts import cut

__all__ = ["FRONT_ENDS", "Decoder", "FrontEnd", "Model", "load"]


def load(name: str | Path) -> Model:
    """Return the model that `name` refers to: a known name, a `.gguf` file, a directory with `config.json`, or that file alone.

    Front ends of plug-ins read other files and directories. Only metadata is read; the ranks read the weights. A model without
    weights can be planned but not run.

    Raises ModelError for an unknown name, a corrupt file, or a model that needs what unitp does not implement.
    """
    path = Path(name)
    if os.path.lexists(path) or path.suffix == ".gguf":
        return _read(path)
    from unitp.frontends.configs import CONFIGS, known_config
    from unitp.frontends.gguf import load_gguf
    from unitp.frontends.known_models import find

    if str(name) in CONFIGS:
        return known_config(str(name))
    return load_gguf(find(str(name)), str(name))


def _read(path: Path) -> Model:
    """Return the model at a path, as the first front end reads it that accepts it: built-in ones come before plug-ins.

    Raises ModelError if no front end accepts the path, and what goes wrong in one.
    """
    for offer in FRONT_ENDS.built_in.values():
        if offer.value.accepts(path):
            return offer.value.load(path)
    for offer in FRONT_ENDS.strangers().values():
        try:
            if offer.value.accepts(path):
                return offer.value.load(path)
        except Exception as error:
            if isinstance(error, UnitpError) or from_signal(error):
                raise
            raise ModelError(
                f"front end {cut(offer.name)} of {cut(offer.distribution)} failed on {path}: {type(error).__name__}: {error}"
            ) from error
    if path.is_dir():
        return FRONT_ENDS.built_in["huggingface"].value.load(path)  # it says what is missing
    kinds = "; ".join(offer.value.about for offer in FRONT_ENDS.all().values())
    raise ModelError(f"no front end reads {path}", hint=f"They read {kinds}.")
