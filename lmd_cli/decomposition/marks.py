"""Tensors that are told from constants by their type: what depends on the inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class MarkedTensor(torch.Tensor):
    """Depends on the inputs."""


def unmark_tensor(value: Any) -> Any:
    """A marked tensor as a plain alias of itself, anything else as it is."""
    if not isinstance(value, MarkedTensor):
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(Tensor)


def unmark(tree: Any) -> Any:
    """The same structure without marks."""
    return pytree.tree_map(unmark_tensor, tree)


def mark(tree: Any) -> Any:
    """The same structure with every floating or complex tensor marked."""
    return pytree.tree_map(
        lambda v: v.as_subclass(MarkedTensor) if isinstance(v, Tensor) and is_continuous(v) else v,
        tree,
    )


def is_continuous(x: Tensor) -> bool:
    """Whether a tensor can carry parts: it is floating or complex."""
    return x.is_floating_point() or x.is_complex()


def marked(*trees: Any) -> list[MarkedTensor]:
    """The marked tensors of (possibly nested) arguments, in order."""
    return [leaf for leaf in pytree.tree_leaves(trees) if isinstance(leaf, MarkedTensor)]


def count_marked(*trees: Any) -> int:
    """How many tensors of (possibly nested) arguments are marked."""
    return len(marked(*trees))
