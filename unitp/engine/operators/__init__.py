"""ONNX operators, each written once over the local primitives. A backend's overrides replace the most frequent ones.

An implementation is `fn(p, ctx, *inputs)`: the primitives, the `unitp.program.rank.Context`, local arrays (None if
an input is absent or this rank holds no part of it). It returns the output, or a tuple of several, in the shapes and
dtypes of the context, and is not called if all outputs are empty. A `Prepared` one reads attributes before the first
call. Nothing is checked: rules and guards did that, and whatever a framework raises ends the rank. Results are exact to
rounding in float64; float attributes are their float32 rounding, widened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unitp.engine.operators import attention, elementwise, linear, lookup, norm, reduction, shaping
from unitp.engine.overrides import Implementation
from unitp.errors import ProgramError, did_you_mean
from unitp.plugins.hooks import Hook, hookimpl, hookspec

__all__ = ["DECOMPOSITIONS", "get", "ops", "unitp_decompositions"]


@hookspec
def unitp_decompositions() -> Mapping[str, Implementation]:
    """Return the decompositions of the operators that this plug-in adds (`unitp_operators`), by operator."""
    return {}


FAMILIES = (attention, elementwise, linear, lookup, norm, reduction, shaping)


class BuiltIn:
    """The decompositions of all families."""

    @hookimpl
    def unitp_decompositions(self) -> Mapping[str, Implementation]:
        """Return the decompositions that come with unitp. Raises ProgramError if two families have one for the same operator."""
        found: dict[str, Implementation] = {}
        for family in FAMILIES:
            if twice := found.keys() & family.decomposition.keys():
                raise ProgramError(f"operator {min(twice)} has two decompositions")
            found |= family.decomposition
        return found


DECOMPOSITIONS: Hook[Implementation] = Hook("decomposition", unitp_decompositions, Callable, [BuiltIn()])


def get(op: str) -> Implementation:
    """Return the decomposition of `op`. Plug-ins are loaded if it is not built in. Raises ProgramError if there is none."""
    found = DECOMPOSITIONS.find(op)
    if found is None:
        raise ProgramError(f'operator "{op}" has no decomposition', hint=did_you_mean(op, ops()))
    return found


def ops() -> set[str]:
    """Return the operators that have a decomposition."""
    return set(DECOMPOSITIONS.all())
