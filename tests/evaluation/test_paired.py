"""Paired differences against the bootstrap of whole statistics, and vehicles by tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmd_cli.evaluation.paired import (
    FEWEST_SCENES,
    NOT_DETECTED,
    clusters_of,
    moves,
    vehicle_changes,
)
from lmd_cli.evaluation.run_metrics import (
    BY_PARTS,
    BY_REMOVAL,
    DETECTED,
    Metric,
    difference,
    metric_of,
    object_metrics,
)
from lmd_cli.evaluation.statistics import Resampling, bootstrap

GENERATOR = np.random.default_rng(5)
#: Thirty rows in nine samples, none of them alike.
SAMPLES = [f"s{k}" for k in GENERATOR.integers(0, 9, 30)]
ABOVE = [GENERATOR.normal(size=30), GENERATOR.normal(0.3, 1, 30)]
BELOW = [GENERATOR.uniform(0.5, 2, 30), GENERATOR.uniform(0.5, 2, 30)]


def metric(which: int) -> Metric:
    return Metric("m", "", SAMPLES, ABOVE[which], BELOW[which])


def test_a_difference_is_the_bootstrap_of_the_difference():
    """With the clusters in order of appearance, both functions draw the same resamples."""

    def statistic(rows: np.ndarray) -> float:
        first, second = (ABOVE[i][rows].sum() / BELOW[i][rows].sum() for i in (0, 1))
        return float(second - first)

    draws = Resampling(SAMPLES, seed=3, resamples=200)
    interval = difference(metric(0), metric(1), draws, {s: s for s in SAMPLES})
    expected = bootstrap(statistic, 30, seed=3, resamples=200, groups=SAMPLES)
    for name in ("estimate", "low", "high"):
        assert getattr(interval, name) == pytest.approx(getattr(expected, name), abs=1e-12)


def test_pairing_is_what_makes_the_interval_narrow():
    """A shift that every row has alike has no variance at all, whatever the rows' own."""
    shifted = Metric("m", "", SAMPLES, ABOVE[0] + 0.25 * BELOW[0], BELOW[0])
    draws = Resampling(SAMPLES, seed=0, resamples=200)
    clusters = {s: s for s in SAMPLES}
    paired = difference(metric(0), shifted, draws, clusters)
    assert paired.low == pytest.approx(0.25)
    assert paired.high == pytest.approx(0.25)
    alone = metric(0).interval(draws, clusters)
    assert alone.high - alone.low > 0.3


def test_the_order_of_a_sum_is_no_difference():
    ones = Metric("m", "", SAMPLES, np.ones(30), np.ones(30))
    rounded = Metric("m", "", SAMPLES, np.full(30, 1 - 2e-16), np.ones(30))
    interval = difference(ones, rounded, Resampling(SAMPLES), {s: s for s in SAMPLES})
    assert (interval.estimate, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_one_cluster_gives_no_interval():
    only = metric_of("m", "", [("a", 1.0, 1.0), ("a", 3.0, 1.0)])
    bounds = only.interval(Resampling(["a"]), {"a": "a"})
    assert bounds.estimate == 2.0
    assert math.isnan(bounds.low)
    assert math.isnan(bounds.high)


def test_resamples_without_a_row_are_undefined():
    """Of a metric with rows in one sample of two, the resamples that miss it do not count."""
    rare = metric_of("m", "", [("a", 2.0, 1.0)])
    bounds = rare.interval(Resampling(["a", "b"], resamples=400), {"a": "a", "b": "b"})
    assert (bounds.estimate, bounds.low, bounds.high) == (2.0, 2.0, 2.0)
    assert 60 < bounds.undefined < 140  # a quarter


def test_the_largest_value_has_no_interval():
    largest = metric_of("m", "", [("a", 2.0, 1.0), ("b", 5.0, 1.0)], largest=True)
    bounds = largest.interval(Resampling(["a", "b"]), {"a": "a", "b": "b"})
    assert bounds.estimate == 5.0
    assert math.isnan(bounds.low)


@pytest.mark.parametrize(
    ("scenes", "kind"), [(FEWEST_SCENES, "scene"), (FEWEST_SCENES - 1, "sample")]
)
def test_scenes_are_drawn_where_there_are_enough(scenes: int, kind: str):
    samples = [f"t{k}" for k in range(40)]
    clusters = clusters_of(samples, {t: f"scene{k % scenes}" for k, t in enumerate(samples)})
    assert clusters.kind == kind
    assert clusters.count == (scenes if kind == "scene" else 40)
    assert clusters_of(samples, {}).kind == "sample"


def vehicle(token: str, parts: str, removal: str, **more: object) -> dict[str, object]:
    detected = int(bool(parts))
    return {"sample_token": "t", "token": token, BY_PARTS: parts, BY_REMOVAL: removal} | {
        DETECTED: detected,
        **more,
    }


def test_vehicles_are_paired_by_token():
    first = [vehicle("a", "camera", "camera"), vehicle("b", "", ""), vehicle("c", "radar", "radar")]
    second = [vehicle("b", "radar", "radar"), vehicle("a", "camera", "only together")]
    a, b = vehicle_changes(first, second)
    assert (a.parts, a.removal) == (("camera", "camera"), ("camera", "only together"))
    assert a.changed
    assert a.detection == ""
    assert b.parts == (NOT_DETECTED, "radar")
    assert b.detection == "newly detected"
    assert vehicle_changes(second, first)[0].detection == "newly missed"
    assert moves([a, b], "parts") == {("camera", "camera"): 1, (NOT_DETECTED, "radar"): 1}


def test_metrics_over_vehicles():
    parts = ["camera", "radar", "bias"]
    sums = {"total": 1.0, "part_camera": 3.0, "part_radar": 1.0, "part_bias": -4.0}
    lost = {"detected_without_camera": 0, "detected_without_radar": 1}
    lost |= {"detected_without_camera+radar": None}
    seen = vehicle("a", "camera", "camera", **sums, **lost)
    missed = vehicle("b", "", "", **dict.fromkeys(sums, -1.0), **lost)
    metrics = object_metrics(parts)
    values = {name: m.over(name, [seen, missed]).value for name, m in metrics.items()}
    assert values["objects.detected"] == 0.5
    assert values["objects.share.camera"] == 0.75  # the missed one has no evidence
    assert values["objects.logit.camera"] == 1.0
    assert values["objects.detected_without.camera"] == 0.0
    assert values["objects.detected_without.radar"] == 1.0
    assert math.isnan(values["objects.detected_without.camera+radar"])  # not known
    assert values["objects.lost_without.camera"] == 1.0
    assert values["objects.lost_without.radar"] == 0.0
    assert values["objects.lost_without.any"] == 1.0
    assert values["objects.bias_share"] == pytest.approx((0.5 + 1 / 3) / 2)
    assert values["objects.decisive.camera"] == 1.0
    assert values["objects.decisive_removal.together"] == 0.0
    assert math.isnan(metrics["objects.share.radar"].over("m", [missed]).value)
