"""The arguments of calls that a program has taken down, and the calls as functions of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lmd_cli.decomposition.memory import Place

if TYPE_CHECKING:
    from lmd_cli.decomposition.tracing.operators import Operator


def leaves_of(tree: Any) -> Sequence[Any]:
    """Arguments one by one, also in lists."""
    if isinstance(tree, Place):
        return [tree]
    if isinstance(tree, (list, tuple)):
        return [leaf for value in tree for leaf in leaves_of(value)]
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves_of(value)]
    return [tree]


def map_arguments(function: Callable[[Any], Any], value: Any) -> Any:
    """A function of every argument, also in lists."""
    if isinstance(value, Tensor) or not isinstance(value, (list, tuple)):
        return function(value)
    return type(value)(map_arguments(function, v) for v in value)


def with_values(given: dict[str, Any], value: Callable[[Place], Any]) -> dict[str, Any]:
    """A call's arguments with what lies at their places."""

    def leaf(found: Any) -> Any:
        return value(found) if isinstance(found, Place) else found

    return {name: map_arguments(leaf, argument) for name, argument in given.items()}


def runner(op: Operator) -> Callable[[dict[str, Any]], Any]:
    """An operator as a function of its arguments by name."""

    def run(values: dict[str, Any]) -> Any:
        arguments = op.function._schema.arguments
        names = dict(zip((a.name for a in arguments), op.names, strict=True))
        return op.function(**{a: values[n] for a, n in names.items() if n in values})

    return run


def writer(op: Operator) -> Callable[[dict[str, Any]], list[Tensor]]:
    """An operator that writes to its arguments, as a function that returns them."""

    def run(values: dict[str, Any]) -> list[Tensor]:
        copies = {name: map_arguments(_copy, values[name]) for name in op.written if name in values}
        runner(op)({**values, **copies})
        return [leaf for name in copies for leaf in leaves_of(copies[name])]

    return run


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
