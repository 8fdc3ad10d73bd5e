"""Which method to trust on a network, from the scores of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lmd_cli.evaluation.scores.against_ground_truth import Score
from lmd_cli.evaluation.statistics import Interval


@dataclass(frozen=True)
class Verdict:
    """What the scores say of the methods.

    Attributes:
        best: the method of the highest quality: the mean of its AUROC and its rank correlations,
            these brought to the same scale from 0 to 1, where 0.5 is chance.
        quality: for each method.
        level: others that are within its interval, best first.
        avoid: those whose intervals end before that begins, worst last.
    """

    best: str
    quality: Mapping[str, float]
    level: list[str]
    avoid: list[str]

    @property
    def sentence(self) -> str:
        """One, to end the report of the scores with."""
        level = f"its interval does not exclude {_listed(self.level)}" if self.level else ""
        avoid = f"avoid {_listed(self.avoid)}, whose intervals end below it" if self.avoid else ""
        best = f"Trust {self.best} on this network"
        how = f"{self.quality[self.best]:.3f}, the mean of AUROC and rank correlation, chance 0.5"
        return "; ".join(filter(None, (f"{best} ({how})", level, avoid))) + "."


def verdict(scores: Mapping[str, Sequence[Score]]) -> Verdict | None:
    """The verdict; none without two methods that have scores.

    Bounds are means of the scores' bounds: wider than an interval of the mean, so that no method is
    excluded too soon.
    """
    known = {name: own for name, own in scores.items() if not math.isnan(_estimate(own))}
    if len(known) < 2:
        return None
    quality = {name: _estimate(own) for name, own in known.items()}
    best, *others = sorted(quality, key=lambda name: -quality[name])
    lowest = _mean(known[best], lambda interval: interval.low)
    level = [name for name in others if not quality[name] < lowest]
    avoid = [name for name in others if _mean(known[name], lambda i: i.high) < lowest]
    return Verdict(best, quality, level, avoid)


def _estimate(scores: Sequence[Score]) -> float:
    return _mean(scores, lambda interval: interval.estimate)


def _mean(scores: Sequence[Score], of: Callable[[Interval], float]) -> float:
    """Of AUROCs and rank correlations, each kind counting half; NaN if there are none."""
    known = [s for s in scores if not math.isnan(of(s.interval))]
    kinds = (
        [of(s.interval) for s in known if s.name.startswith("auroc")],
        [(1.0 + of(s.interval)) / 2.0 for s in known if s.name.startswith("rank")],
    )
    means = [fmean(values) for values in kinds if values]
    return fmean(means) if means else math.nan


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
