"""How many digits of a mean and its deviation are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable

#: Digits behind the point of mean and deviation, as in the paper.
PLACES = (2, 2)
#: Beside a table's largest figure, what is this much smaller is zero: rounding of the largest.
NOTHING = 1e-6


def largest(means: Iterable[float]) -> float:
    """The largest size of a table's figures, those that do not exist aside; 0 of none."""
    return max((abs(mean) for mean in means if math.isfinite(mean)), default=0.0)


def rounded(value: float, places: int, scale: float = math.inf) -> str:
    """A figure as it is shown.

    The paper's digits suit logits; an error of 0.0004 beside one of 3 would be 0.00, and is shown
    with two significant digits.

    Args:
        value: finite.
        places: digits behind the point, where they hold two significant ones.
        scale: the :func:`largest` figure; none to keep to ``places``, as for correlations.
    """
    if NOTHING * scale < abs(value) < 10.0 ** (1 - places):
        return f"{value:.2g}"
    return f"{round(value, places) + 0.0:.{places}f}"


def figure_text(
    mean: float, deviation: float, places: tuple[int, int] = PLACES, scale: float = math.inf
) -> str:
    """``0.05 ± 0.02``; a dash for a deviation that is NaN."""
    spread = "–" if math.isnan(deviation) else rounded(deviation, places[1], scale)
    return f"{rounded(mean, places[0], scale)} ± {spread}"
