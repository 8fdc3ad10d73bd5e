"""Appendix C: which part of the bias ``(*shape)`` an activation hands to which modality, as shares
``(M, *shape)`` in [0, 1], made from the clean parts of M modalities ``(M, *shape)``."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_shares(modalities: Tensor, bias: Tensor) -> Tensor:
    """Appendix C.1 for M modalities (eq. 15).

    The bias goes to the one modality that alone has its sign, all others having the opposite
    one; it stays where none or several have it. (The paper's "and" between the two lines of each
    condition means "or".)
    """
    agree = (modalities * bias.sign()) > 0
    oppose = (modalities * bias.sign()) < 0
    alone = agree & (oppose.sum(0) == modalities.shape[0] - 1)
    return alone.to(modalities.dtype)


def ratio_shares(modalities: Tensor, bias: Tensor) -> Tensor:
    """Appendix C.2 for M modalities.

    Where all modalities have one sign, a modality's share is |h_m| / sum |h| if the bias has
    that sign too, and (1 - |h_m| / sum |h|) / (M - 1) if it has the other; elsewhere the bias
    stays. Their sum over M is 1 or 0.
    """
    count = modalities.shape[0]
    same = (modalities > 0).all(0) | (modalities < 0).all(0)
    weight = modalities.abs() / modalities.abs().sum(0).clamp_min(torch.finfo(bias.dtype).tiny)
    against = (1.0 - weight) / max(count - 1, 1)
    agree = modalities[0] * bias.sign() > 0
    oppose = modalities[0] * bias.sign() < 0
    shares = torch.where(agree, weight, torch.where(oppose, against, torch.zeros_like(weight)))
    return shares * same
