"""What may be decomposed: named modalities of finite floating tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.capture import recording
from lmd_cli.decomposition.errors import InputError
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.pytrees import leaves, named_leaves, paths


def names_of(inputs: Any) -> tuple[str, ...]:
    """The modalities, in order.

    Raises:
        InputError: inputs that are not by name.
    """
    if not isinstance(inputs, Mapping):
        given = type(inputs).__name__
        raise InputError(
            f"inputs is a {given}; expected a dict that gives each modality, by the name of the "
            'function\'s argument, its tensors, such as {"camera": ..., "radar": ...}'
        )
    for name in inputs:
        if not isinstance(name, str):
            raise InputError(f"inputs has the key {name!r}; expected names of arguments")
    return tuple(inputs)


@dataclass(frozen=True)
class Lifted:
    """A tensor of a modality's input with what rides along.

    Attributes:
        total: the tensor.
        stack: its own part and its extras' ``(1 + extras, *shape)``.
        rows: of the layout.
    """

    total: Tensor
    stack: Tensor
    rows: tuple[int, ...]


def lifted(layout: Layout, modality: str, tree: Any, extras: Sequence[Any] = ()) -> list[Lifted]:
    """A modality's tensors: its own part is all of each, the rest zero.

    Args:
        layout: rows of the stack.
        modality: whose input this is.
        tree: a tensor or nested dicts and lists of tensors.
        extras: alternatives of the same structure and shapes.

    Raises:
        InputError: a leaf that is not a finite floating tensor, or extras that do not match.
    """
    for path, leaf in named_leaves(tree):
        _require_leaf(leaf, f"input {modality!r}{path}")
    others = [_leaves_like(extra, paths(tree), modality, i) for i, extra in enumerate(extras)]
    rows = (layout.modalities.index(modality), *layout.extra_rows(modality))
    return [
        _lift_leaf(leaf, [o[i] for o in others], rows, f"{modality!r}")
        for i, leaf in enumerate(leaves(tree))
    ]


def _require_leaf(leaf: Any, where: str) -> None:
    if not isinstance(leaf, Tensor) or not leaf.dtype.is_floating_point:
        what = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
        raise InputError(
            f"{where}: expected a floating-point tensor, got {what}; pass what is not a modality "
            "in constants="
        )
    if bad := not_finite(leaf):
        raise InputError(
            f"{where} holds {bad}; expected finite numbers (a mask of -inf belongs in constants=)"
        )


def _leaves_like(extra: Any, structure: list[str], modality: str, index: int) -> list[Any]:
    if paths(extra) != structure:
        raise InputError(f"extra {index} of {modality!r} has another structure than the input")
    return leaves(extra)


def _lift_leaf(leaf: Tensor, extras: list[Tensor], rows: tuple[int, ...], name: str) -> Lifted:
    for i, extra in enumerate(extras):
        found, wanted = _kind(extra), _kind(leaf)
        if found != wanted:
            raise InputError(f"extra {i} of {name} is {found}, the input {wanted}")
    parts = torch.stack([leaf, *extras])
    return Lifted(leaf, parts, rows)


def _kind(value: Any) -> str:
    """What a leaf is, for an error message."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"a tensor of shape {tuple(value.shape)}, {value.dtype}, on {value.device}"


def not_finite(x: Tensor) -> str:
    """What a tensor holds besides finite numbers, for a message; empty if it holds nothing else,
    or while a CUDA graph is recorded, which cannot look."""
    if x.numel() == 0 or recording(x):
        return ""
    if bool(x.sum().isfinite()):  # one pass over memory; a sum of large numbers may overflow
        return ""
    if bool(x.isnan().any()):
        return "NaN"
    return "infinite values" if bool(x.isinf().any()) else ""
