"""Regions with known ground truth, which a user's data set can provide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Region:
    """Something in a sample, and, where that is known, how much evidence each modality had.

    Attributes:
        token: its name, unique in the data set.
        mask: which cells of the output it covers, bool, the output's shape without batch and
            channels: (H, W) or (D, H, W).
        evidence: for each modality a number, larger for more evidence, 0 if it could not see it;
            none where nobody knows.
        instance: the object, if several samples show the same one; its token if empty.
    """

    token: str
    mask: Tensor
    evidence: Mapping[str, float] = field(default_factory=dict)
    instance: str = ""
