"""The machine in a plan file: the fields that differ from the defaults.

A plan can then be explained and compared without the machine file that it was made with.
"""

from __future__ import annotations

from typing import Any

import msgspec

from unitp.certificate import CertifiedPlan
from unitp.cost.machine import Machine
from unitp.cost.machine_file import parse_machine
from unitp.cost.machine_text import machine_text
from unitp.errors import InputError, PlanError
from unitp.plans import ANEW

EXACT = 17
"""The significant digits that give back every float64 exactly."""


def record(machine: Machine) -> dict[str, Any]:
    """Return the fields of a machine that differ from `Machine()`, as plain values for JSON; empty for the default machine."""
    found = _plain(machine)
    assert isinstance(found, dict)
    return found


def planned_machine(plan: CertifiedPlan) -> Machine:
    """Return the machine that a plan was priced on. Raises PlanError if its record is damaged, or does not fit its mesh."""
    if not (kept := plan.certificate.priced_on):
        return Machine()
    try:
        machine = msgspec.convert(kept, Machine, str_keys=True)
        parse_machine(machine_text(machine, digits=EXACT), "the plan's machine")
        machine.require_fits(plan.mesh)
    except (msgspec.ValidationError, InputError, ArithmeticError) as error:
        raise PlanError(f"the machine that the plan keeps is damaged: {error}", hint=ANEW) from None
    return machine


def _plain(value: object) -> object:
    """Return structs as dicts of the fields that differ from their defaults (JSON has no infinity; it is always a default)."""
    if isinstance(value, msgspec.Struct):
        fields = ((f, getattr(value, f.name)) for f in msgspec.structs.fields(value))
        return {f.name: _plain(own) for f, own in fields if own != _default(f)}
    if isinstance(value, dict):
        return {str(key): _plain(own) for key, own in value.items()}
    return [_plain(own) for own in value] if isinstance(value, tuple) else value


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
