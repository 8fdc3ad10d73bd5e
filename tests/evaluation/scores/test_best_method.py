"""Which method to trust: by hand-made scores."""

from __future__ import annotations

import math

from lmd_cli.evaluation.scores.against_ground_truth import Score
from lmd_cli.evaluation.scores.best_method import verdict
from lmd_cli.evaluation.statistics import Interval


def scores(auroc: float, rank: float, wide: float) -> list[Score]:
    def interval(x: float) -> Interval:
        return Interval(x, x - wide, x + wide, 0)

    return [
        Score("auroc_all", "camera", interval(auroc), 9),
        Score("rank_correlation", "camera", interval(rank), 9),
        Score("rank_correlation", "radar", interval(math.nan), 9),
        Score("bias_share", "", interval(0.1), 9),
    ]


def test_best_level_and_avoided() -> None:
    found = verdict(
        {
            "poor": scores(0.5, 0.0, 0.01),
            "best": scores(0.9, 0.8, 0.05),
            "near": scores(0.88, 0.78, 0.05),
            "uncertain": scores(0.8, 0.6, 0.2),
            "unknown": scores(math.nan, math.nan, 0.1),
        }
    )
    assert found is not None
    assert (found.best, found.level, found.avoid) == ("best", ["near"], ["poor"])
    assert math.isclose(found.quality["best"], (0.9 + 0.9) / 2)
    assert found.sentence == (
        "Trust best on this network (0.900, the mean of AUROC and rank correlation, chance 0.5); "
        "its interval does not exclude near; avoid poor, whose intervals end below it."
    )


def test_without_a_choice_there_is_nothing_to_say() -> None:
    assert verdict({}) is None
    assert verdict({"one": scores(0.9, 0.5, 0.1)}) is None
    nothing = [Score("bias_share", "", Interval(0.1, 0.0, 0.2, 0), 3)]
    assert verdict({"one": nothing, "other": nothing}) is None
