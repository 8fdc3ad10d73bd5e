"""Which sensor a detection is counted under, and the counts."""

from __future__ import annotations

import math

import pytest

from lmd_cli.evaluation.detections.counts import clusters_note, counts, members
from lmd_cli.evaluation.detections.parts import senses, threshold_of
from lmd_cli.networks.detections import Place

SENSORS = ("camera", "radar")


@pytest.mark.parametrize(
    ("camera", "radar", "bias", "expected"),
    [
        (3.0, -1.0, 0.0, ("camera", "camera", "radar")),
        (3.0, 2.0, 0.0, ("any of several", "none", "radar")),
        (1.0, 1.0, -1.5, ("only together", "any", "camera")),
        (-2.0, 0.5, 0.0, ("", "", "camera")),
        (2.0, 0.1, 0.0, ("camera", "camera", "radar")),
        (0.1, 0.2, 1.0, ("any of several", "none", "camera")),
    ],
)
def test_the_three_sensors_of_a_place(
    camera: float, radar: float, bias: float, expected: tuple[str, str, str]
):
    said = senses({"camera": camera, "radar": radar, "bias": bias}, SENSORS, threshold=0.4)
    assert (said["decisive"], said["needs"], said["against"]) == expected


def test_a_threshold_is_a_logit_unless_the_output_is_a_probability():
    place = Place.cell("heatmap.car", 0, 1, 1)
    assert threshold_of(place, 0.3) == pytest.approx(math.log(0.3 / 0.7))
    assert threshold_of(Place.cell("probability.car", 0, 1, 1), 0.3) == 0.3


def row(number: int, kind: str, outcome: str, match: int | None = None, **values):
    plain = {
        "detection": number,
        "kind": kind,
        "outcome": outcome,
        "match": match,
        "class": "car",
        "distance": 12.0,
        "rain": 0,
        "night": 0,
        "visibility": None,
        "scene": "one",
        "sample": f"s{number % 2}",
        "instance": "",
        "m.decisive": "",
        "m.against": "camera",
    }
    return plain | values


ROWS = [
    row(0, "box", "hit", 4, **{"m.decisive": "radar"}),
    row(1, "box", "false alarm", **{"m.decisive": "camera"}),
    row(2, "box", "false alarm", **{"m.decisive": "radar"}, distance=50.0),
    row(3, "box", "duplicate", 4, **{"m.decisive": "camera"}),
    row(4, "annotation", "hit", 0, instance="i", visibility=4),
    row(5, "annotation", "miss", instance="j", visibility=2, rain=1),
    row(6, "annotation", "miss", **{"m.against": ""}),  # outside the map
    row(7, "annotation", "not counted"),
]


def test_each_object_is_counted_once_under_its_sensor():
    behind = {key: [r["detection"] for r in own] for key, own in members(ROWS, "m").items()}
    everything = {key[2:]: own for key, own in behind.items() if key[0] == "all"}
    assert everything == {
        ("hit", "radar"): [4],
        ("false alarm", "camera"): [1],
        ("false alarm", "radar"): [2],
        ("miss", "camera"): [5],
    }
    assert behind["distance", "50 m and more", "false alarm", "radar"] == [2]
    assert behind["distance", "10 to 20 m", "hit", "radar"] == [4]
    assert behind["weather", "rain, day", "miss", "camera"] == [5]
    assert behind["visibility", "4", "hit", "radar"] == [4]


def test_shares_with_intervals_of_clusters():
    made = {(c.by, c.outcome, c.sensor): c for c in counts(ROWS, "m", seed=0, resamples=200)}
    one = made["all", "false alarm", "camera"]
    assert (one.count, one.of, one.share) == (1, 2, 0.5)
    assert (one.low, one.high) == (0.0, 1.0)  # two samples, drawn whole
    hit = made["all", "hit", "radar"]
    assert (hit.low, hit.high) == (1.0, 1.0)
    assert "one scene is too few" in clusters_note(ROWS)
    many = [row(i, "box", "false alarm", scene=f"scene {i}") for i in range(10)]
    assert clusters_note(many) == "Intervals (95 %) draw whole scenes, of which there are 10."
