"""The hook through which operators are found: built-in ones and those of plug-ins."""

from __future__ import annotations

from collections.abc import Sequence

from unitp.graph.ops import attention, elementwise, linear, lookup, norm, reduction, shaping
from unitp.graph.ops.records import Operator, look_in, register
from unitp.plugins.hooks import Hook, hookimpl, hookspec


@hookspec
def unitp_operators() -> Sequence[Operator]:
    """Return the records of the operators that this plug-in adds. Each needs a decomposition too (`unitp_decompositions`)."""
    return ()


FAMILIES = (attention, elementwise, linear, lookup, norm, reduction, shaping)


class BuiltIn:
    """The operators of all families."""

    @hookimpl
    def unitp_operators(self) -> Sequence[Operator]:
        """Return the records that come with unitp."""
        return [operator for family in FAMILIES for operator in family.register]


OPERATORS: Hook[Operator] = Hook("operator", unitp_operators, Operator, [BuiltIn()])

for _offer in OPERATORS.built_in.values():
    register(_offer.value)
look_in(lambda: [offer.value for offer in OPERATORS.strangers().values()])
