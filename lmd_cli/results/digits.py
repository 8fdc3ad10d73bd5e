"""How many digits of a mean and its deviation are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable

#: Digits behind the point of mean and deviation, as in the paper.
PLACES = (2, 2)
#: Of a table whose figures are all small, what is this much smaller still is zero.
NOTHING = 1e-6


def small_scale(means: Iterable[float], places: tuple[int, int] = PLACES) -> float:
    """The largest of a table's figures, if so many digits would show next to nothing of it; else 0.

    The paper's digits suit logits; the errors of a network with small outputs would all be 0.00.
    """
    largest = max((abs(mean) for mean in means if math.isfinite(mean)), default=0.0)
    return largest if largest < 10.0 ** (1 - places[0]) else 0.0


def rounded(value: float, places: int, scale: float) -> str:
    """A figure as it is shown: two significant digits where all are small.

    Args:
        value: finite.
        places: digits behind the point otherwise.
        scale: from :func:`small_scale`.
    """
    if scale and abs(value) > NOTHING * scale:
        return f"{value:.2g}"
    return f"{value:.{places}f}"


def figure_text(
    mean: float, deviation: float, places: tuple[int, int] = PLACES, scale: float = 0.0
) -> str:
    """``0.05 ± 0.02``."""
    return f"{rounded(mean, places[0], scale)} ± {rounded(deviation, places[1], scale)}"
