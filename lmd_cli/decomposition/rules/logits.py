"""Logarithms of sums of exponentials, under the variant's softmax rule.

``frozen``: the sum normalises, so it is a constant of the operating point, as attention weights
are. ``taylor``: J h with J = softmax(x), the remainder to the bias. Eq. 9 has no form for many
inputs and one output, so ``secant`` takes J too. ``log_softmax`` is x minus this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.frozen import Stream
from lmd_cli.decomposition.registry import aliases, register_rule
from lmd_cli.decomposition.rules.composite import composed
from lmd_cli.decomposition.rules.linear import with_bias
from lmd_cli.decomposition.tensor import DecomposedTensor

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session


@dataclass(frozen=True)
class FrozenMean:
    """A sum with constant weights, the softmax at the operating point, and its remainder."""

    weights: Tensor
    dims: tuple[int, ...]
    keepdim: bool
    remainder: Tensor

    def weighted(self, h: Tensor) -> Tensor:
        """J h for h ``(..., *weights.shape)``; where a weight is 0, infinities do not count."""
        terms = torch.where(self.weights == 0, 0.0, self.weights * h)
        return terms.sum(self.dims, keepdim=self.keepdim)

    def __call__(self, h: Tensor, stream: Stream, index: int) -> Tensor:
        out = self.weighted(h)
        return out + self.remainder if stream.is_bias else out


@register_rule(*aliases("logsumexp"), kind="softmax", equation="eq. 1, App. D.2")
def logsumexp(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    dim: int | Sequence[int],
    keepdim: bool = False,
) -> Any:
    """log(sum(exp(x))) over some dimensions."""
    total = func(input.total, dim, keepdim)
    dims, ndim = ((dim,) if isinstance(dim, int) else tuple(dim)), input.total.dim()
    over = tuple(d if d < 0 else d - ndim for d in dims)
    top = torch.logsumexp(input.total, over, keepdim=True)
    weights = torch.exp(input.total - top)
    if session.variant.softmax == "frozen":
        session.freeze(FrozenMean(torch.zeros_like(weights), over, keepdim, total.clone()))
        return session.make(total, total.clone().unsqueeze(0), (session.layout.bias,))
    mean = FrozenMean(weights, over, keepdim, total)
    mean = replace(mean, remainder=total - mean.weighted(input.total))
    session.freeze(mean)
    return with_bias(session, total, mean.weighted(input.parts), input.rows, mean.remainder)


@composed(
    *(f for f in aliases("log_softmax") if f is not F.log_softmax), equation="eq. 6, App. D.2"
)
def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """x - logsumexp(x)."""
    x = input if dtype is None else input.to(dtype)
    return x - torch.logsumexp(x, dim, keepdim=True)


@composed(F.log_softmax, equation="eq. 6, App. D.2")
def functional_log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """The same with ``nn.functional``'s arguments."""
    if dim is None:
        raise NotImplementedError("log_softmax along a guessed dimension")
    return log_softmax(input, dim, dtype)
