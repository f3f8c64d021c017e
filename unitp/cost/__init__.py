"""Prices of work and communication on a machine."""

from unitp.cost.collectives import collective_seconds
from unitp.cost.machine import Machine
from unitp.cost.roofline import copy_seconds, operator_seconds

__all__ = ["Machine", "collective_seconds", "copy_seconds", "operator_seconds"]
