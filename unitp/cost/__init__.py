"""Prices of work and communication on a machine."""

from unitp.cost.collectives import collective_seconds
from unitp.cost.machine import Device, Link, Machine, Pair
from unitp.cost.roofline import copy_seconds, operator_seconds

__all__ = ["Device", "Link", "Machine", "Pair", "collective_seconds", "copy_seconds", "operator_seconds"]
