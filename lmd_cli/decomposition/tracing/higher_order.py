"""Operators that take functions, such as flex attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch._C import DispatchKey
from torch._ops import HigherOrderOperator

from lmd_cli.decomposition.tracing.modes import Operators, before_dispatch

if TYPE_CHECKING:
    from lmd_cli.decomposition.tracing.results import Results


def as_operators(
    session: Results, function: HigherOrderOperator, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What it computes, by the operators that it and its functions call.

    Raises:
        NoRuleError: it has no implementation of other operators.
    """
    made_of = function.py_kernels.get(DispatchKey.CompositeExplicitAutograd)
    if not callable(made_of):
        raise session.refused(function, "the operators that it calls cannot be followed")
    with before_dispatch(), Operators(session):
        return made_of(*args, **kwargs)
