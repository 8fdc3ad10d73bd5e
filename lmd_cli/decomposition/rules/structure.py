"""Operations that move, copy or sum elements: applied to each part as to the total.

They are linear without a constant, so eq. 13 (superposition) holds as it stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.registry import aliases, getters, register_rule
from lmd_cli.decomposition.rules.common import only_decomposed, per_part
from lmd_cli.decomposition.tensor import DecomposedTensor, plain
from lmd_cli.decomposition.tree import carries_parts, plain_tree

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

_RESHAPES = "view view_as reshape reshape_as flatten unflatten ravel"
_NAMES = """
    permute transpose t movedim moveaxis
    swapaxes swapdims squeeze unsqueeze expand expand_as broadcast_to repeat tile
    repeat_interleave roll flip fliplr flipud rot90 chunk split split_with_sizes tensor_split
    hsplit vsplit dsplit unbind narrow select index_select gather take_along_dim take diagonal
    diag_embed tril triu adjoint
    sum mean nansum nanmean cumsum pixel_shuffle pixel_unshuffle channel_shuffle
    positive neg negative deg2rad rad2deg
    atleast_1d atleast_2d atleast_3d trace diag diagflat sum_to_size
    unsafe_chunk unsafe_split unsafe_split_with_sizes affine_grid embedding
"""


@register_rule(
    *aliases(*_NAMES.split()), *getters("T", "mT", "H", "mH"), kind="structure", equation="eq. 13"
)
def structure(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """The same rearrangement of every part; views of the total are views of the parts."""
    args, kwargs = _plain_shapes(func, args, kwargs)
    if not carries_parts(args, kwargs):
        return func(*args, **kwargs)
    x, run = only_decomposed(session, func, args, kwargs)
    return per_part(session, x, run)


@register_rule(*aliases(*_RESHAPES.split()), kind="structure", equation="eq. 13")
def reshape(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Another shape; parts that are laid out otherwise than the total are copied if need be."""
    args, kwargs = _plain_shapes(func, args, kwargs)
    if not carries_parts(args, kwargs):
        return func(*args, **kwargs)
    x, run = only_decomposed(session, func, args, kwargs)
    if any(isinstance(value, torch.dtype) for value in (*args, *kwargs.values())):
        raise session.refuse(func, "reading the bytes as another type is not linear")
    total = run(x.total)
    return session.make(total, x.parts.reshape(len(x.rows), *total.shape), x.rows)


def _plain_shapes(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """``x.view_as(y)`` and its like read only the shape of ``y``."""
    if not func.__name__.endswith("_as"):
        return args, kwargs
    return (args[0], *plain_tree(args[1:])), plain_tree(kwargs)


@register_rule(*aliases("diff"), kind="structure", equation="eq. 13")
def difference(
    session: Session, func: Any, input: Any, n: int = 1, dim: int = -1, *ends: Any, **more: Any
) -> Any:
    """Finite differences of one tensor."""
    if ends or more:
        raise session.refuse(func, "prepend and append have no rule; concatenate first")
    return per_part(session, input, lambda h: func(h, n, dim))


@register_rule(*aliases("clone", "contiguous"), kind="structure", equation="eq. 13")
def copy(session: Session, func: Any, input: DecomposedTensor, **kwargs: Any) -> Any:
    """Copies; a memory format is applied to each part."""
    total = func(input.total, **kwargs)
    if total is input.total:
        return input
    batch = input.parts.flatten(0, 1) if input.total.dim() else input.parts
    return session.make(total, func(batch, **kwargs).reshape(input.parts.shape), input.rows)


_CONVERSIONS = "to float double half bfloat16 cpu cuda type_as type"


@register_rule(*aliases(*_CONVERSIONS.split()), kind="structure", equation="eq. 13")
def convert(session: Session, func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Changes of type and device; ``y.type_as(x)`` for a plain ``y`` reads only x's type.

    Integers and Booleans are constants of the operating point.
    """
    total = func(plain(x), *plain_tree(args), **plain_tree(kwargs))
    floating = isinstance(total, Tensor) and total.dtype.is_floating_point
    if not isinstance(x, DecomposedTensor) or not floating:
        return total
    if total is x.total:
        return x
    return session.make(total, x.parts.to(total), x.rows)


@register_rule(torch.Tensor.__getitem__, kind="structure", equation="eq. 13")
def getitem(session: Session, func: Any, x: Any, index: Any) -> Any:
    """Indexing by constants; a Boolean mask is read as the positions that it selects."""
    if not isinstance(x, DecomposedTensor):
        raise session.refuse(func, "an index carries parts")
    index = without_masks(index)
    return per_part(session, x, lambda h: h[index])


def without_masks(index: Any) -> Any:
    entries = index if isinstance(index, tuple) else (index,)
    positions: list[Any] = []
    for entry in entries:
        mask = isinstance(entry, Tensor) and entry.dtype in (torch.bool, torch.uint8)
        entries_of_mask = entry.nonzero(as_tuple=True) if mask else (entry,)
        positions.extend(entries_of_mask)
    return tuple(positions)


@register_rule(
    *aliases("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
    *aliases("dropout1d", "dropout2d", "dropout3d"),
    kind="structure",
    equation="eq. 13",
)
def dropout(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Any:
    """Identity in evaluation mode.

    Raises:
        NoRuleError: the module is in training mode, where the output is random.
    """
    if training and p > 0:
        raise session.refuse(func, "dropout is in training mode; call .eval() on the network")
    return input


@register_rule(F.unfold, F.fold, kind="structure", equation="eq. 13")
def patches(session: Session, func: Any, input: DecomposedTensor, *args: Any, **kw: Any) -> Any:
    """im2col and its adjoint, part by part."""
    total = func(input.total, *args, **kw)
    stack = torch.stack([func(part, *args, **kw) for part in input.parts])
    return session.make(total, stack, input.rows)


@register_rule(torch.Tensor.unfold, kind="structure", equation="eq. 13")
def windows(session: Session, func: Any, x: DecomposedTensor, *args: Any, **kw: Any) -> Any:
    """Sliding windows along one dimension (a view)."""
    return per_part(session, x, lambda h: func(h, *args, **kw))
