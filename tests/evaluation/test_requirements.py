"""Requirements: what can be written, and when it is met."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.paired import Clusters, clusters_of
from lmd_cli.evaluation.requirements import Condition, check_requirement, parse_requirement
from lmd_cli.evaluation.run_metrics import Metric

SAMPLES = [f"s{k}" for k in range(20)]


def clusters() -> Clusters:
    return clusters_of(SAMPLES, {}, resamples=200)


def metric(mean: float, spread: float = 0.0) -> Metric:
    values = mean + spread * np.linspace(-1, 1, 20)
    return Metric("m", "", SAMPLES, values, np.ones(20))


def test_what_can_be_written():
    parsed = parse_requirement(" objects.share.radar[distance>40, category == vehicle.car] >= 2e-1")
    assert parsed.metric == "objects.share.radar"
    assert parsed.conditions == [
        Condition("distance", ">", 40.0),
        Condition("category", "==", "vehicle.car"),
    ]
    assert (parsed.operator, parsed.offset, parsed.relative) == (">=", 0.2, False)
    parsed = parse_requirement("pcc.camera+radar.lidar@identity-ratio<=baseline * 1.1 + 0.05")
    assert parsed.metric == "pcc.camera+radar.lidar@identity-ratio"
    assert (parsed.factor, parsed.offset) == (1.1, 0.05)
    assert parse_requirement("iou>=baseline-.01").offset == -0.01
    assert parse_requirement("mse.radar.radar < -1").offset == -1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("iou", "is no requirement; expected one such as 'iou>=0.5'"),
        ("iou>=", "is no requirement"),
        ("iou>=nan", "is no requirement"),
        ("iou=>0.5", "is no requirement"),
        ("iou>=0.5 and more", "is no requirement"),
        ("objects.detected[near]>=0.5", "'near' is no condition"),
        ("objects.detected[]>=0.5", "'' is no condition"),
        ("objects.detected[category>car]>=0.5", "compared with the text 'car'"),
    ],
)
def test_what_cannot(text: str, said: str):
    with pytest.raises(ConfigError) as caught:
        parse_requirement(text)
    assert repr(text) in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Condition("distance", ">", 40.0), False),
        (Condition("distance", ">=", 40.0), True),
        (Condition("category", "!=", "car"), True),
        (Condition("speed", "<", 100.0), False),  # not known
    ],
)
def test_conditions(condition: Condition, holds: bool):
    vehicle = {"distance": 40.0, "category": "bus", "speed": None}
    assert condition.holds(vehicle) is holds


@pytest.mark.parametrize(
    ("text", "met"),
    [("m>=0.5", True), ("m>0.5", False), ("m<=0.5", True), ("m==0.5", True), ("m!=0.5", False)],
)
def test_a_number(text: str, met: bool):
    outcome = check_requirement(parse_requirement(text), metric(0.5), None, clusters())
    assert outcome.passed is met
    assert (outcome.value.estimate, outcome.bound, outcome.rows) == (0.5, 0.5, 20)
    assert (outcome.reason == "") is met


def test_a_baseline_is_paired():
    """Both metrics spread alike, so that their difference is certain though neither is."""
    requirement = parse_requirement("m>=baseline-0.01")
    outcome = check_requirement(requirement, metric(0.495, 1), metric(0.5, 1), clusters())
    assert outcome.passed
    assert outcome.bound == pytest.approx(0.49)
    assert outcome.margin.low == pytest.approx(outcome.margin.high) == pytest.approx(0.005)
    assert outcome.value.high - outcome.value.low > 0.3
    outcome = check_requirement(
        parse_requirement("m>=baseline*0.9"), metric(0.4, 0.1), metric(0.5, 0.1), clusters()
    )
    assert outcome.reason == "0.4 is not >= 0.45"
    assert outcome.margin.estimate == pytest.approx(-0.05)


def test_confidence_asks_for_the_whole_interval():
    requirement, own = parse_requirement("m>=0.45"), metric(0.5, 0.5)
    assert check_requirement(requirement, own, None, clusters()).passed
    outcome = check_requirement(requirement, own, None, clusters(), confident=True)
    assert not outcome.passed
    assert outcome.reason.startswith("the interval of the margin is [-0.")
    assert check_requirement(requirement, metric(0.5), None, clusters(), confident=True).passed
    alone = Metric("m", "", ["s0"], np.array([0.5]), np.ones(1))
    one = clusters_of(["s0"], {})
    outcome = check_requirement(requirement, alone, None, one, confident=True)
    assert outcome.reason == "there is no interval to be confident of"


def test_nothing_meets_nothing():
    empty = Metric("m", "", [], np.zeros(0), np.zeros(0))
    for text in ("m>=0", "m<=0", "m!=0"):
        outcome = check_requirement(parse_requirement(text), empty, None, clusters())
        assert not outcome.passed
        assert outcome.reason.startswith("not defined")
        assert math.isnan(outcome.value.estimate)
