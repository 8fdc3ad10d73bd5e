"""Shapley values of every layer from plain runs of a network, one for each coalition."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.decomposition.test_coalition_slopes import close


def with_zeros(given: Mapping[str, Any], present: set[str]) -> dict[str, Any]:
    """The features with those of all other modalities zero."""
    return {
        name: pytree.tree_map(torch.clone if name in present else torch.zeros_like, tree)
        for name, tree in given.items()
    }


def layers_of(function: Any, given: Mapping[str, Any]) -> dict[str, list[Tensor]]:
    """Every module's outputs in a plain run, and the function's own under an empty name."""
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            times = sum(key.split("#")[0] == name for key in seen)
            key = f"{name}#{times + 1}" if times else name
            seen[key] = [leaf.clone() for leaf in pytree.tree_leaves(output)]

        return hook

    modules = function.named_modules() if isinstance(function, nn.Module) else ()
    hooks = [module.register_forward_hook(keep(name)) for name, module in modules if name]
    with torch.no_grad():
        seen[""] = pytree.tree_leaves(function(**given))
    for hook in hooks:
        hook.remove()
    return seen


def shapley_of_layers(
    function: Any, given: Mapping[str, Any]
) -> dict[str, dict[str, list[Tensor]]]:
    """Layer, then modality (and ``bias``), by the mean over all orders of arrival."""
    known: dict[frozenset[str], dict[str, list[Tensor]]] = {}

    def at(present: set[str]) -> dict[str, list[Tensor]]:
        key = frozenset(present)
        if key not in known:
            known[key] = layers_of(function, with_zeros(given, present))
        return known[key]

    orders = list(permutations(given))
    made = {layer: {"bias": outputs} for layer, outputs in at(set()).items()}
    for layer, parts in made.items():
        for name in given:
            rises = [
                [
                    after - before
                    for before, after in zip(
                        at(set(order[: order.index(name)]))[layer],
                        at(set(order[: order.index(name) + 1]))[layer],
                        strict=True,
                    )
                ]
                for order in orders
            ]
            parts[name] = [sum(column) / len(orders) for column in zip(*rises, strict=True)]
    return made


def assert_shapley(result: Any, wanted: Mapping[str, list[Tensor]]) -> None:
    parts = {**result.parts, "bias": result.bias}
    assert parts.keys() == wanted.keys()
    for name, tree in parts.items():
        for a, b in zip(pytree.tree_leaves(tree), wanted[name], strict=True):
            close(a, b)
