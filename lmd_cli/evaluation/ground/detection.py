"""When a vehicle counts as detected: one criterion for scores, figures and pages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmd_cli.evaluation.ground.plane import Array

#: Outputs that mark a vehicle's centre by a peak, followed by the name of a class.
HEATMAP, PROBABILITY = "heatmap", "probability"
#: The probability that a detection exceeds: of the mean logit, or at the peak.
MEAN_PROBABILITY, PEAK_PROBABILITY = 0.5, 0.3


@dataclass(frozen=True)
class Criterion:
    """When an output says of some cells that a vehicle is there.

    Attributes:
        peak: its highest value there counts, not the mean over all the cells.
        threshold: what it must exceed.
        words: the same in words.
    """

    peak: bool = False
    threshold: float = 0.0
    words: str = "mean logit above zero"

    @property
    def quantity(self) -> str:
        """What :meth:`score` gives, in words."""
        return "highest value of the output" if self.peak else "mean logit"

    @property
    def definition(self) -> str:
        """When one sensor alone is decisive, for a figure's caption."""
        return (
            f"detected ({self.words}), and so it stays with this sensor's part and the bias alone, "
            "but with no other sensor's: who contributed, not what happens when a sensor fails"
        )

    def holds(self, values: Array) -> bool:
        """Whether a vehicle is detected, by the output's values (n,) over its footprint."""
        return self.score(values) > self.threshold

    def score(self, values: Array) -> float:
        """What is compared with the threshold."""
        return float(values.max() if self.peak else values.mean(dtype=np.float64))

    def cells(self, mask: NDArray[np.bool_], total: Array) -> NDArray[np.bool_]:
        """Those of the cells that count: all, or the one where the prediction is highest."""
        if not self.peak or not mask.any():
            return mask
        highest = np.zeros_like(mask)
        highest.flat[np.argmax(np.where(mask, total, -np.inf))] = True
        return highest


def criterion_of(output: str, probability: float | Literal["auto"] = "auto") -> Criterion:
    """The criterion of an output, by its name.

    Args:
        output: such as ``segmentation`` or ``heatmap.car``.
        probability: the config's ``detection``.
    """
    head = output.partition(".")[0]
    peak = head in (HEATMAP, PROBABILITY)
    if probability == "auto":
        probability = PEAK_PROBABILITY if peak else MEAN_PROBABILITY
    logit = math.log(probability / (1 - probability))
    if peak:
        words = f"highest probability above {probability:g}"
        return Criterion(True, probability if head == PROBABILITY else logit, words)
    return Criterion(False, logit, f"mean logit above {f'{logit:.3g}' if logit else 'zero'}")


def sought_class(output: str) -> str | None:
    """The one class of vehicles that an output looks for, ``None`` if it looks for all."""
    head, _, name = output.partition(".")
    return name if head in (HEATMAP, PROBABILITY) and name else None
