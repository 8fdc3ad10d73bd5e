"""Two ways of getting the same numbers, timed in turn."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Comparison:
    """Two ways of getting the same numbers.

    Attributes:
        name: what is compared.
        ours, other: seconds, the smallest of the repeats.
        ratio: ours / other.
        bound: what the ratio must not exceed.
        difference: largest difference of the results, over the largest value.
    """

    name: str
    ours: float
    other: float
    ratio: float
    bound: float
    difference: float


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def compare(
    name: str,
    ours: Callable[[], Any],
    other: Callable[[], Any],
    difference: Callable[[Any, Any], float],
    bound: float,
    repeats: int,
) -> Comparison:
    """Runs both in turn; the first round, which fetches memory from the system, does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + repeats):
        (seconds, a), (seconds_other, b) = timed(ours), timed(other)
        times[0].append(seconds)
        times[1].append(seconds_other)
    best, best_other = min(times[0][1:]), min(times[1][1:])
    return Comparison(name, best, best_other, best / best_other, bound, difference(a, b))


def relative(a: Tensor, b: Tensor) -> float:
    """max |a - b| / max |b|."""
    return float((a - b).abs().max() / b.abs().max())


def peak_gigabytes() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
