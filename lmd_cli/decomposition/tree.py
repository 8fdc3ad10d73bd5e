"""Nested dicts, lists and tuples of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.tensor import DecomposedTensor, plain


def decomposed_leaves(tree: Any) -> Iterator[DecomposedTensor]:
    """Every decomposed tensor in (possibly nested) arguments or results."""
    if isinstance(tree, DecomposedTensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from decomposed_leaves(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from decomposed_leaves(value)
    elif isinstance(tree, slice):
        yield from decomposed_leaves((tree.start, tree.stop, tree.step))


def carries_parts(*trees: Any) -> bool:
    """Whether any argument carries parts."""
    return any(True for tree in trees for _ in decomposed_leaves(tree))


def plain_tree(tree: Any) -> Any:
    """The same structure with every decomposed tensor replaced by its total."""
    return pytree.tree_map(plain, tree, is_leaf=lambda v: isinstance(v, DecomposedTensor))


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Applies ``function`` to every tensor of a tree; other leaves stay."""
    return pytree.tree_map(lambda v: function(v) if isinstance(v, Tensor) else v, tree)


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Leaves with a readable path such as ``['depth'][0]``."""
    for path, leaf in pytree.tree_flatten_with_path(tree)[0]:
        yield pytree.keystr(path), leaf
