"""The cyclic schedule of Appendix D.4: which sample is perturbed with which.

For sample k and m = 1..count, a modality is replaced by that of sample (k + stride * m) mod N.
Stepping by the stride visits gcd(stride, N) cycles; on its cycle, a sample needs exactly the next
``count`` samples. A walk along the cycle with a buffer of count + 1 encodings therefore encodes
each sample once (and the ``count`` samples behind the end of an arc once more).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Literal

from lmd_cli.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """The order in which samples are visited, and their partners.

    Attributes:
        samples: N, the number of samples.
        stride: in samples (500 in the paper).
        count: partners of each sample (12 in the paper).

    Raises:
        ConfigError: N is too small, or a sample would be its own partner.
    """

    samples: int
    stride: int
    count: int

    def __post_init__(self) -> None:
        if self.samples < self.count + 1:
            raise ConfigError(
                f"perturbation.count is {self.count}, but there are only {self.samples} samples; "
                f"at least {self.count + 1} are needed (lower perturbation.count or take more data)"
            )
        for m in range(1, self.count + 1):
            if (self.stride * m) % self.samples == 0:
                raise ConfigError(
                    f"perturbation.stride {self.stride} x {m} is a multiple of the {self.samples} "
                    "samples: a sample would be replaced by itself; use perturbation.stride: auto"
                )

    @classmethod
    def resolve(cls, samples: int, stride: int | Literal["auto"], count: int) -> Schedule:
        """A schedule with ``auto`` replaced by :func:`auto_stride`."""
        if stride == "auto":
            stride = auto_stride(samples, count)
        return cls(samples, stride, count)

    @property
    def length(self) -> int:
        """Samples on one cycle."""
        return self.samples // gcd(self.stride, self.samples)

    def sample(self, position: int) -> int:
        """Index of the sample at a position of the walk (cycle after cycle)."""
        cycle, step = divmod(position, self.length)
        return (cycle + step * self.stride) % self.samples

    def partner(self, position: int, m: int) -> int:
        """Index of the sample that replaces a modality at offset m."""
        return self.replacing(self.sample(position), m)

    def replacing(self, index: int, m: int) -> int:
        """:meth:`partner` of a sample by its index."""
        return (index + self.stride * m) % self.samples

    def order(self, first: int, last: int) -> list[int]:
        """Indices of the samples in the order in which a walk over ``[first, last)`` needs them.

        Each arc's own samples, then the ``count`` behind its end.
        """
        return [
            self.partner(arc.start, m)
            for arc in self.arcs(first, last)
            for m in range(len(arc) + self.count)
        ]

    def arcs(self, first: int, last: int) -> Iterator[range]:
        """Positions ``[first, last)`` cut where one cycle ends and the next begins."""
        while first < last:
            end = min(last, (first // self.length + 1) * self.length)
            yield range(first, end)
            first = end


def divide(parts: Sequence[range], shares: int) -> list[list[range]]:
    """Cuts ranges of positions into shares of equal size (within one), in order.

    Args:
        parts: disjoint ranges in rising order.
        shares: how many.

    Returns:
        For each share its ranges: one, unless it has a gap in it.
    """
    total = sum(map(len, parts))
    divided = []
    for share in range(shares):
        first, last = (-(-total * edge // shares) for edge in (share, share + 1))
        divided.append(_between(parts, first, last))
    return divided


def _between(parts: Sequence[range], first: int, last: int) -> list[range]:
    """The ``first`` to ``last`` of all positions, counted through the ranges."""
    pieces = []
    for part in parts:
        piece = part[max(first, 0) : max(last, 0)]
        first, last = first - len(part), last - len(part)
        if piece:
            pieces.append(piece)
    return pieces


def auto_stride(samples: int, count: int) -> int:
    """The largest s <= (N - 1) // count with gcd(s, N) = 1: one cycle, partners far apart.

    Raises:
        ConfigError: N < count + 1.
    """
    for stride in range((samples - 1) // max(count, 1), 0, -1):
        if gcd(stride, samples) == 1:
            return stride
    raise ConfigError(
        f"perturbation.count is {count}, but there are only {samples} samples; at least "
        f"{count + 1} are needed (lower perturbation.count or take more data)"
    )
