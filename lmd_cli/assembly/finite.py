"""Finds the origin of non-finite values: the data, the weights or the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.inputs import not_finite
from lmd_cli.errors import CheckpointError, ContractError, DataError, LmdError


def whose(
    network: Any,
    batch: Mapping[str, Any],
    sample: str,
    where: str,
    run: Callable[[], object],
) -> LmdError:
    """The message about features that are not finite.

    Args:
        network: what computed them.
        batch: from this.
        sample: the batch's token.
        where: what is not finite, and how, for the message.
        run: computes them again.

    Returns:
        a ``DataError`` if the batch is not finite, a ``CheckpointError`` if weights are not, else a
        ``ContractError`` that names the module where it begins.
    """
    for name, value in batch.items():
        bad = next(filter(None, map(_bad, pytree.tree_leaves(value))), "")
        if bad:
            return DataError(
                f"the data of sample {sample}: tensor {name} holds {bad}, so {where}", token=sample
            )
    if bad := bad_weights(network):
        return CheckpointError(f"{bad}, so {where} (at sample {sample}, whose data is finite)")
    begins = first_module(network, run)
    return ContractError(
        f"{where}; expected finite numbers. The data and all weights are finite: it begins in "
        f"{begins or 'the network, outside its modules'}"
    )


def bad_weights(network: Any) -> str:
    """The first of a network's weights that is not finite, in words; nothing if all are.

    Buffers may be infinite: some are masks.
    """
    if not isinstance(network, nn.Module):
        return ""
    for name, weight in network.named_parameters():
        if bad := _bad(weight.detach()):
            return f"the weights: {name} holds {bad}"
    for name, buffer in network.named_buffers():
        if _bad(buffer) == "NaN":
            return f"the weights: {name} holds NaN"
    return ""


def first_module(network: Any, run: Callable[[], object]) -> str:
    """The first module that gives what is not finite for finite inputs, with its type."""
    if not isinstance(network, nn.Module):
        return ""
    names: list[str] = []
    with _Watch(network, names), torch.no_grad():
        run()
    return names[0] if names else ""


class _Watch:
    """Writes down modules that make what is not finite; leaves no hooks behind."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        self._network, self._names = network, names

    def __enter__(self) -> None:
        named = [(name, module) for name, module in self._network.named_modules() if name]
        self._hooks = [m.register_forward_hook(self._hook(name)) for name, m in named]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        def check(module: nn.Module, inputs: Any, output: Any) -> None:
            if any(_all_bad(output)) and not any(_all_bad(inputs)):
                self._names.append(f"{name} ({type(module).__name__})")

        return check


def _all_bad(tree: Any) -> Iterator[str]:
    return filter(None, map(_bad, pytree.tree_leaves(tree)))


def _bad(value: Any) -> str:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return not_finite(value) if floating else ""
