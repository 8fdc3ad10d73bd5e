"""What may be decomposed: named modalities of finite floating tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.capture import recording
from lmd_cli.decomposition.errors import InputError
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.maps import Stack
from lmd_cli.decomposition.pytrees import named_leaves


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


def lifted(
    layout: Layout, inputs: Mapping[str, Any], extras: Mapping[str, Sequence[Any]] | None = None
) -> dict[str, list[Stack]]:
    """The parts of each modality's tensors, in order: its own is all of each, the rest zero.

    Raises:
        InputError: a leaf that is not a finite floating tensor, or extras that do not match.
    """
    parts: dict[str, list[Stack]] = {}
    for name, tree in inputs.items():
        own = dict(named_leaves(tree))
        for path, leaf in own.items():
            _require_leaf(leaf, f"input {name!r}{path}")
        alternatives = [own]
        for i, extra in enumerate((extras or {}).get(name, ())):
            alternatives.append(dict(named_leaves(extra)))
            _require_alike(alternatives[-1], own, f"extra {i} of {name!r}")
            alternatives += alternatives[-1:] * (layout.copies - 1)
        rows = (layout.modalities.index(name), *layout.extra_rows(name))
        parts[name] = [(torch.stack([each[path] for each in alternatives]), rows) for path in own]
    return parts


def _require_leaf(leaf: Any, where: str) -> None:
    if not isinstance(leaf, Tensor) or not leaf.dtype.is_floating_point:
        what = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
        raise InputError(
            f"{where}: expected a floating-point tensor, got {what}; pass what is not a modality "
            "in constants="
        )
    if leaf.layout is not torch.strided or leaf.is_meta:
        raise InputError(f"{where}: expected a dense tensor with values; constants= takes others")
    if bad := not_finite(leaf):
        raise InputError(
            f"{where} holds {bad}; expected finite numbers (a mask of -inf belongs in constants=)"
        )


def _require_alike(extra: Mapping[str, Any], own: Mapping[str, Any], where: str) -> None:
    if [*extra] != [*own]:
        raise InputError(f"{where} has another structure than the input")
    for path, leaf in own.items():
        given, wanted = _described(extra[path]), _described(leaf)
        if given != wanted:
            raise InputError(f"{where} is {given}, the input {wanted}")


def _described(value: Any) -> str:
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
