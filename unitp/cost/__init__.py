"""What work and communication cost on a machine, in seconds.

A `Machine` says which `Device` each rank is, and which `Link` joins two ranks. The functions price one operator, one copy or one
collective by its formula; `unitp.planner.prices` applies them to layouts.
"""

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
