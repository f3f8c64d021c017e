"""A machine in a plan's file: what of it differs from the default numbers. A plan is then explained without its machine's file."""

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
"""Digits that lose nothing of a number."""


def record(machine: Machine) -> dict[str, Any]:
    """The machine as plain values, without what is as in `Machine()`; empty for the default one."""
    found = _plain(machine)
    assert isinstance(found, dict)
    return found


def planned_machine(plan: CertifiedPlan) -> Machine:
    """The machine that a plan was priced on. Raises PlanError where its record is none, or none for its mesh."""
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
    """Structs as dicts of the fields that are not their defaults (infinity, which JSON has not, is always one)."""
    if isinstance(value, msgspec.Struct):
        fields = ((f, getattr(value, f.name)) for f in msgspec.structs.fields(value))
        return {f.name: _plain(own) for f, own in fields if own != _default(f)}
    if isinstance(value, dict):
        return {str(key): _plain(own) for key, own in value.items()}
    return [_plain(own) for own in value] if isinstance(value, tuple) else value


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
