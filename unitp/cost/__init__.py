"""Prices of work and communication on a machine."""

from unitp.cost.collectives import collective_seconds
from unitp.cost.device import Device, Rate
from unitp.cost.link import Link, Stretch
from unitp.cost.machine import Machine, Pair
from unitp.cost.roofline import copy_seconds, operator_seconds, view_seconds

__all__ = [
    "Device",
    "Link",
    "Machine",
    "Pair",
    "Rate",
    "Stretch",
    "collective_seconds",
    "copy_seconds",
    "operator_seconds",
    "view_seconds",
]
