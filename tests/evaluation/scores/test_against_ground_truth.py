"""Scores against known truth, on vehicles made for the purpose."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from lmd_cli.data.synthetic import Evidence
from lmd_cli.evaluation.scores.against_ground_truth import (
    LEAST_OBJECTS,
    Score,
    Vehicle,
    ground_truth_scores,
    separations,
)

TWO, THREE = ("camera", "radar"), ("camera", "radar", "lidar")
GRADES = ("visible_pixels", "radar_returns", "lidar_returns")


def vehicle(
    seen: str,
    parts: Mapping[str, float],
    *,
    detected: bool = True,
    instance: str = "",
    **grades: float,
) -> Vehicle:
    """``seen`` names the sensors by their first letters."""
    marks = {name: name[0] in seen for name in THREE}
    given = {name: grades.get(name, 0) for name in GRADES}
    evidence = Evidence(**marks, free_share=1.0, radar_returns_keyframe=0, fog=0.0, **given)  # type: ignore[arg-type]
    return Vehicle("token", instance or str(id(parts)), evidence, detected, {"bias": 0.0, **parts})


def by_name(scores: list[Score]) -> dict[tuple[str, str], Score]:
    return {(s.name, s.modality): s for s in scores}


def random_vehicles(count: int, seed: int = 0) -> list[Vehicle]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        seen = rng.choice(["c", "r", "l", "cr", "crl"])
        parts = {name: rng.normal() + (name[0] in seen) for name in (*THREE, "bias")}
        grades = dict(zip(GRADES, rng.integers(0, 9, 3).tolist(), strict=True))
        made.append(
            vehicle(seen, parts, detected=bool(rng.random() < 0.6), instance=f"{i // 3}", **grades)
        )
    return made


def test_with_two_sensors_d_is_their_difference() -> None:
    vehicles = random_vehicles(90)
    actual = by_name(ground_truth_scores(vehicles, TWO, resamples=10))
    assert list(actual) == [
        ("auroc_all", "camera"),
        ("auroc_detected", "camera"),
        ("rank_correlation", "camera"),
        ("rank_correlation", "radar"),
        ("bias_share", ""),
    ]
    for name, kept in (
        ("auroc_all", vehicles),
        ("auroc_detected", [v for v in vehicles if v.detected]),
    ):
        single = [v for v in kept if v.evidence.camera != v.evidence.radar]  # the LiDAR is no part
        labels = [v.evidence.camera for v in single]
        d = [v.parts["camera"] - v.parts["radar"] for v in single]
        score = actual[name, "camera"]
        assert score.interval.estimate == pytest.approx(roc_auc_score(labels, d))
        assert score.vehicles == len(single)


def test_with_three_sensors_each_is_set_against_the_mean_of_the_others() -> None:
    vehicles = random_vehicles(120)
    actual = by_name(ground_truth_scores(vehicles, THREE, resamples=10))
    single = [v for v in vehicles if sum(map(v.sees, THREE)) == 1]
    for name in THREE:
        others = [other for other in THREE if other != name]
        d = [v.parts[name] - np.mean([v.parts[other] for other in others]) for v in single]
        wanted = roc_auc_score([v.sees(name) for v in single], d)
        assert actual["auroc_all", name].interval.estimate == pytest.approx(wanted)


def test_rank_correlation_is_over_all_vehicles() -> None:
    vehicles = random_vehicles(70)
    actual = by_name(ground_truth_scores(vehicles, THREE, resamples=10))
    for name, grade in zip(THREE, GRADES, strict=True):
        part = [v.parts[name] for v in vehicles]
        evidence = [getattr(v.evidence, grade) for v in vehicles]
        wanted = scipy.stats.spearmanr(part, evidence).statistic
        score = actual["rank_correlation", name]
        assert score.interval.estimate == pytest.approx(wanted)
        assert score.vehicles == 70


def test_share_of_the_bias() -> None:
    vehicles = [
        vehicle("c", {"camera": 3.0, "radar": -1.0, "bias": -4.0}),  # 4 / 8
        vehicle("r", {"camera": 0.0, "radar": 1.0, "bias": 0.0}),  # 0
        vehicle("r", {"camera": 0.0, "radar": 0.0, "bias": 0.0}),  # says nothing
    ]
    score = by_name(ground_truth_scores(vehicles, TWO, resamples=10))["bias_share", ""]
    assert score.interval.estimate == 0.25
    assert score.vehicles == 2


def test_a_perfect_and_a_reversed_method() -> None:
    def parts(right: bool, seen: str) -> dict[str, float]:
        return {name: float((name[0] == seen) == right) for name in TWO}

    for right, wanted in ((True, 1.0), (False, 0.0)):
        seen = "cr" * 9 + "crc"  # eleven and ten objects
        vehicles = [vehicle(s, parts(right, s), instance=f"{i}") for i, s in enumerate(seen)]
        interval = by_name(ground_truth_scores(vehicles, TWO))["auroc_all", "camera"].interval
        assert (interval.estimate, interval.low, interval.high) == (wanted,) * 3


def test_intervals_resample_objects_and_hold_the_truth() -> None:
    vehicles = random_vehicles(150)
    once = by_name(ground_truth_scores(vehicles, TWO, seed=3, resamples=200))["auroc_all", "camera"]
    same = by_name(ground_truth_scores(vehicles, TWO, seed=3, resamples=200))["auroc_all", "camera"]
    other = by_name(ground_truth_scores(vehicles, TWO, seed=4, resamples=200))[
        "auroc_all", "camera"
    ]
    assert once == same
    assert once.interval.low != other.interval.low
    assert once.interval.low < once.interval.estimate < once.interval.high
    one_object = [
        vehicle("c" if i % 2 else "r", {"camera": i * 1.0, "radar": 0.0}, instance="same")
        for i in range(9)
    ]
    alone = by_name(ground_truth_scores(one_object, TWO))["auroc_all", "camera"]
    assert alone.support == 1
    assert alone.interval.estimate == pytest.approx(0.5)
    assert math.isnan(alone.interval.low)  # there is nothing to resample


def test_what_does_not_exist_is_undefined() -> None:
    vehicles = [vehicle("c", {"camera": 1.0, "radar": 0.0}, instance=f"{i}") for i in range(4)]
    actual = by_name(ground_truth_scores(vehicles, TWO, resamples=20))
    assert math.isnan(actual["auroc_all", "camera"].interval.estimate)  # no radar-only vehicle
    assert math.isnan(actual["rank_correlation", "camera"].interval.estimate)  # all the same
    empty = by_name(ground_truth_scores([], TWO, resamples=20))
    assert all(math.isnan(s.interval.estimate) for s in empty.values())


def test_separation_of_three() -> None:
    one = vehicle("c", {"camera": 5.0, "radar": 1.0, "lidar": 3.0})
    assert separations([one], "camera", THREE).tolist() == [3.0]
    assert separations([one], "camera", THREE[:1]).tolist() == [5.0]


@pytest.mark.parametrize(("objects", "drawn"), [(LEAST_OBJECTS - 1, False), (LEAST_OBJECTS, True)])
def test_an_interval_needs_objects_in_each_class(objects: int, drawn: bool) -> None:
    """Of the smaller class, each counted once however often it is seen."""
    seen = "c" * 3 * objects + "r" * 60
    vehicles = [
        vehicle(s, {"camera": i % 7, "radar": i % 5}, instance=f"{i // 3}", visible_pixels=i % 9)
        for i, s in enumerate(seen)
    ]
    actual = by_name(ground_truth_scores(vehicles, TWO, resamples=20))
    score, rank = actual["auroc_all", "camera"], actual["rank_correlation", "camera"]
    assert (score.support, score.vehicles) == (objects, len(seen))
    assert not math.isnan(score.interval.estimate)
    assert math.isnan(score.interval.low) != drawn
    assert math.isnan(score.interval.high) != drawn
    assert rank.support == objects + 20
    assert not math.isnan(rank.interval.low)


def test_a_rank_correlation_is_carried_by_what_varies() -> None:
    vehicles = [
        vehicle("cr", {"camera": i * 1.0, "radar": 0.5 * i}, instance=f"{i}", radar_returns=i == 3)
        for i in range(40)
    ]
    actual = by_name(ground_truth_scores(vehicles, TWO, resamples=20))
    score = actual["rank_correlation", "radar"]
    assert (score.support, score.vehicles) == (1, 40)
    assert not math.isnan(score.interval.estimate)
    assert math.isnan(score.interval.low)
    assert actual["rank_correlation", "camera"].support == 0  # no pixel of any
