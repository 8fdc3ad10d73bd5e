"""Max-pooling and its kin: every part is read where the total was largest (slope 0 or 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.frozen import FrozenSelection
from lmd_cli.decomposition.registry import aliases, register_rule
from lmd_cli.decomposition.tensor import DecomposedTensor

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session


def _select(
    session: Session,
    x: DecomposedTensor,
    total: Tensor,
    pick: Callable[[Tensor], Tensor],
    finish: Callable[[Any], Any] = lambda selected: selected,
) -> Any:
    """``finish`` puts the indices beside the values where the caller wants both."""
    session.freeze(FrozenSelection(pick, finish))
    return finish(session.make(total, torch.vmap(pick)(x.parts), x.rows))


_POOLS = {
    F.max_pool1d: 1,
    F.max_pool2d: 2,
    F.max_pool3d: 3,
    torch.max_pool1d: 1,
    torch.max_pool2d: 2,
    torch.max_pool3d: 3,
    F.adaptive_max_pool1d: 1,
    F.adaptive_max_pool2d: 2,
    F.adaptive_max_pool3d: 3,
}
_WITH_INDICES = {
    F.max_pool1d_with_indices: 1,
    F.max_pool2d_with_indices: 2,
    F.max_pool3d_with_indices: 3,
    F.adaptive_max_pool1d_with_indices: 1,
    F.adaptive_max_pool2d_with_indices: 2,
    F.adaptive_max_pool3d_with_indices: 3,
}


@register_rule(*_POOLS, *_WITH_INDICES, kind="selection", equation="eq. 9")
def max_pool(
    session: Session, func: Any, input: DecomposedTensor, *args: Any, **kwargs: Any
) -> Any:
    """Max-pooling: a part's value at the position of the total's maximum."""
    spatial = {**_POOLS, **_WITH_INDICES}[func]
    wanted = func in _WITH_INDICES or kwargs.get("return_indices", False)
    total, indices = _pooled(func, spatial, input.total, args, kwargs)

    def pick(h: Tensor) -> Tensor:
        flat = h.flatten(-spatial)  # (..., H * W)
        where = indices.flatten(-spatial).expand(*flat.shape[:-1], -1)
        return flat.gather(-1, where).unflatten(-1, indices.shape[-spatial:])

    return _select(session, input, total, pick, lambda h: (h, indices) if wanted else h)


def _pooled(func: Any, spatial: int, x: Tensor, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    kind = "adaptive_max_pool" if "adaptive" in func.__name__ else "max_pool"
    plain = {k: v for k, v in kwargs.items() if k != "return_indices"}
    return getattr(F, f"{kind}{spatial}d_with_indices")(x, *args, **plain)


@register_rule(*aliases("max", "min", "amax", "amin"), kind="selection", equation="eq. 9")
def extremum(
    session: Session, func: Any, input: DecomposedTensor, *args: Any, **kwargs: Any
) -> Any:
    """Largest or smallest element along one dimension, or of all."""
    if any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
        raise session.refuse(func, "the elementwise maximum of two tensors has no rule")
    total = func(input.total, *args, **kwargs)
    best = torch.argmax if func.__name__.endswith("max") else torch.argmin
    dim = kwargs.get("dim", args[0] if args else None)
    if dim is None or dim == ():
        where = best(input.total)
        return _select(session, input, total, lambda h: h.flatten()[where])
    if not isinstance(dim, int):
        raise session.refuse(func, "several dimensions at once have no rule; reduce one at a time")
    keep = kwargs.get("keepdim", args[1] if len(args) > 1 else False)
    where = best(input.total, dim, keepdim=True)
    values = total if isinstance(total, Tensor) else total.values
    if not isinstance(total, Tensor):  # its own choice among equals
        where = total.indices if keep else total.indices.unsqueeze(dim)

    def pick(h: Tensor) -> Tensor:
        batch = h.shape[0] if h.dim() and dim % h.dim() else 1  # a replay may stack inputs
        chosen = h.gather(dim, where.expand(batch, *where.shape[1:]) if batch > 1 else where)
        return chosen if keep else chosen.squeeze(dim)

    def finish(h: Any) -> Any:
        return h if isinstance(total, Tensor) else type(total)((h, total.indices))

    return _select(session, input, values, pick, finish)
