"""Rotary frequencies as a Hugging Face config describes them: plain, `linear`, or `llama3`.

Frequency i of d/2 is `base**(-2 i / d) / divisor[i]`. The settings are in `rope_scaling` beside `rope_theta`, or, since
transformers 5, together in `rope_parameters`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from unitp.errors import ModelError
from unitp.frontends.fields import Fields
from unitp.texts import cut, shortened

ROPE_KEYS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary settings under their old or new name; plain if there are none."""
    old, new = (config.get(key) or {} for key in ("rope_scaling", "rope_parameters"))
    return dict(old or new) if isinstance(old or new, dict) else {}


def _kind(settings: Mapping[str, Any]) -> Any:
    return settings.get("rope_type") or settings.get("type") or "default"


def unknown_rope(config: Mapping[str, Any]) -> list[str]:
    """Return the parts of the rotary settings that are not implemented."""
    for key in ("rope_scaling", "rope_parameters"):
        if not isinstance(config.get(key) or {}, dict):
            return [f"{key}={shortened(config[key])}"]
    old, new = (config.get(key) or {} for key in ("rope_scaling", "rope_parameters"))
    if old and new and old != new:
        return [f"rope_scaling={shortened(old)} beside rope_parameters={shortened(new)}"]
    settings = _settings(config)
    kind = _kind(settings)
    if not isinstance(kind, str) or kind not in ROPE_KEYS:
        return [f'RoPE scaling "{cut(str(kind))}" (known: {", ".join(ROPE_KEYS)})']
    known = {"rope_theta", "rope_type", "type", *ROPE_KEYS[kind]}
    usual = {"partial_rotary_factor": 1.0, "factor": 1.0, "attention_factor": 1.0}
    return [
        f'{cut(key)}={shortened(value)} in RoPE scaling "{kind}"'
        for key, value in sorted(settings.items())
        if key not in known and value is not None and value != usual.get(key)
    ]


def rope_divisors(config: Mapping[str, Any], head_dim: int, where: object) -> tuple[float, tuple[float, ...]]:
    """Return the base and the divisors of the rotary frequencies; there are no divisors for plain ones.

    Raises ModelError, which names `where` and the key, for a number that is missing, out of range, or leads to a divisor that is
    0 or infinite.
    """
    settings = _settings(config)
    kind, given = _kind(settings), Fields(settings, where, "RoPE's ")
    base = given.real("rope_theta", Fields(config, where).real("rope_theta", 10000.0, least=1.0), least=1.0)
    if kind == "default":
        return base, ()
    factor = given.real("factor")
    if kind == "linear":
        return base, (factor,) * (head_dim // 2)
    low, high = given.real("low_freq_factor"), given.real("high_freq_factor")
    if low >= high:
        raise given.wrong("low_freq_factor", f"below high_freq_factor, {high}")
    context = given.whole("original_max_position_embeddings", Fields(config, where).whole("max_position_embeddings"))
    divisors = tuple(_llama3(base ** (-2.0 * i / head_dim), factor, low, high, context) for i in range(head_dim // 2))
    if not all(0.0 < d < math.inf for d in divisors):
        raise ModelError(f"{where} has RoPE scaling by numbers that are too small or too large")
    return base, divisors


def _llama3(frequency: float, factor: float, low: float, high: float, context: float) -> float:
    """Return the divisor of a frequency: 1 for short wavelengths, `factor` for long ones, a blend between (Llama 3.1)."""
    wavelength = 2.0 * math.pi / frequency
    if wavelength < context / high:
        return 1.0
    if wavelength > context / low:
        return factor
    smooth = (context / wavelength - low) / (high - low)
    return 1.0 / ((1.0 - smooth) / factor + smooth)
