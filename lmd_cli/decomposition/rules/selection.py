"""Max-pooling and its kin: every part is read where the total was largest (slope 0 or 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.frozen import FrozenSelection
from lmd_cli.decomposition.registry import aliases, register_rule
from lmd_cli.decomposition.rules.composite import composite, partly_composed
from lmd_cli.decomposition.tensor import DecomposedTensor

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session


def select(
    session: Session,
    x: DecomposedTensor,
    total: Tensor,
    pick: Callable[[Tensor], Tensor],
    finish: Callable[[Any], Any] = lambda selected: selected,
) -> Any:
    """``finish`` puts the indices beside the values where the caller wants both."""
    session.freeze(FrozenSelection(pick, finish))
    return finish(session.make(total, torch.vmap(pick)(x.parts), x.rows))


def pick_along(dim: int, where: Tensor, squeeze: bool = False) -> Callable[[Tensor], Tensor]:
    """Reads ``(..., n, ...)`` at the positions ``where`` along one dimension.

    A replay may stack inputs along the first dimension, at positions of a single one.
    """

    def pick(h: Tensor) -> Tensor:
        stacked = h.dim() and dim % h.dim() and where.shape[0] == 1
        positions = where.expand(h.shape[0], *where.shape[1:]) if stacked else where
        chosen = h.gather(dim, positions)
        return chosen.squeeze(dim) if squeeze else chosen

    return pick


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

    return select(session, input, total, pick, lambda h: (h, indices) if wanted else h)


def _pooled(func: Any, spatial: int, x: Tensor, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    kind = "adaptive_max_pool" if "adaptive" in func.__name__ else "max_pool"
    plain = {k: v for k, v in kwargs.items() if k != "return_indices"}
    return getattr(F, f"{kind}{spatial}d_with_indices")(x, *args, **plain)


def _of_two(args: Any, kwargs: Any) -> bool:
    return any(isinstance(value, Tensor) for value in (*args[1:], *kwargs.values()))


partly_composed(*aliases("max"), when=_of_two)(torch.maximum)
partly_composed(*aliases("min"), when=_of_two)(torch.minimum)


@register_rule(*aliases("max", "min"), kind="selection", equation="eq. 9")
def extremum(session: Session, func: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
    """Largest or smallest element along one dimension, or of all; of two tensors as
    ``torch.maximum``."""
    if _of_two((input, *args), kwargs):
        return composite(session, func, input, *args, **kwargs)
    dim = kwargs.get("dim", args[0] if args else None)
    if dim is None:
        dims = range(input.total.dim())
        return _extremum_over(session, func(input.total), input, func.__name__, dims, False)
    result = func(input.total, *args, **kwargs)
    reduced = result.values.dim() < input.total.dim()
    where = result.indices.unsqueeze(dim) if reduced else result.indices

    def finish(h: Any) -> Any:
        return type(result)((h, result.indices))

    return select(session, input, result.values, pick_along(dim, where, reduced), finish)


@register_rule(*aliases("amax", "amin"), kind="selection", equation="eq. 9")
def extremum_over(
    session: Session, func: Any, input: DecomposedTensor, dim: Any = (), keepdim: bool = False
) -> Any:
    """Largest or smallest element over some dimensions, all if none are named."""
    total = func(input.total, dim, keepdim)
    named = [dim] if isinstance(dim, int) else list(dim)
    dims = [d % input.total.dim() for d in named] or range(input.total.dim())
    return _extremum_over(session, total, input, func.__name__, dims, keepdim)


def _extremum_over(
    session: Session,
    total: Tensor,
    x: DecomposedTensor,
    name: str,
    dims: Sequence[int],
    keepdim: bool,
) -> Any:
    """Reads the parts where the total was extreme over ``dims``, the first among equals."""
    over, last = sorted(dims), tuple(range(-len(dims), 0))

    def as_rows(h: Tensor) -> Tensor:
        return h.movedim(over, last).flatten(-len(over)) if over else h.unsqueeze(-1)

    best = torch.argmax if name.endswith("max") else torch.argmin
    where = best(as_rows(x.total), -1, keepdim=True)  # (*kept, 1)

    def pick(h: Tensor) -> Tensor:
        rows = as_rows(h)  # (*kept, n)
        chosen = rows.gather(-1, where.expand(*rows.shape[:-1], 1)).squeeze(-1)
        for dim in over if keepdim else ():
            chosen = chosen.unsqueeze(dim)
        return chosen

    return select(session, x, total, pick)
