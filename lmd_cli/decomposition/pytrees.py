"""Nested dicts, lists, tuples and dataclasses of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import fields
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


def _has_fields(value: Any) -> bool:
    """Whether a leaf of a pytree is an instance of a dataclass, which torch does not look into."""
    return hasattr(type(value), "__dataclass_fields__")


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same structure with ``function`` applied to every leaf."""

    def change(value: Any) -> Any:
        if not _has_fields(value):
            return function(value)
        changed = copy(value)
        for field in fields(value):
            inner = map_leaves(function, getattr(value, field.name))
            object.__setattr__(changed, field.name, inner)  # frozen ones too
        return changed

    return pytree.tree_map(change, tree)


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Applies ``function`` to every tensor of a tree; other leaves stay."""
    return map_leaves(lambda v: function(v) if isinstance(v, Tensor) else v, tree)


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Leaves with a readable path such as ``['depth'][0]`` or ``.boxes['near']``."""
    for path, leaf in pytree.tree_flatten_with_path(tree)[0]:
        name = pytree.keystr(path)
        if not _has_fields(leaf):
            yield name, leaf
            continue
        for field in fields(leaf):
            for inner, value in named_leaves(getattr(leaf, field.name)):
                yield f"{name}.{field.name}{inner}", value


def leaves(tree: Any) -> list[Any]:
    """All leaves, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    result: list[Any] = []
    for leaf in pytree.tree_leaves(tree):
        if _has_fields(leaf):
            for field in fields(leaf):
                result += leaves(getattr(leaf, field.name))
        else:
            result.append(leaf)
    return result
