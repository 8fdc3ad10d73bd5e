"""``lmd score`` on a root with planted false alarms."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from lmd_cli.evaluation.scores.against_ground_truth import Vehicle
from lmd_cli.evaluation.scores.planted import planted_scores
from tests.support.calling import Lmd


def planted(token: str, sensor: str, camera: float, radar: float, detected: bool) -> Vehicle:
    evidence = {name: float(name == sensor) for name in ("camera", "radar")}
    return Vehicle(token, token, evidence, detected, {"camera": camera, "radar": radar, "bias": 0})


def test_a_method_that_names_the_sensor_has_the_highest_score():
    alarms = [
        planted("a", "camera", 3.0, 0.0, True),
        planted("b", "radar", 0.0, 2.0, True),
        planted("c", "radar", 2.0, -1.0, False),
    ]
    scores = planted_scores(alarms, ("camera", "radar"), seed=0, resamples=50)
    named = {score.name: score for score in scores}
    assert named["false_alarm_auroc"].interval.estimate == 1.0
    assert named["false_alarm_auroc"].vehicles == 2
    assert named["planted_auroc"].interval.estimate == 0.75  # a tie counts half


def test_planted_false_alarms_are_scored_beside_the_vehicles(
    lmd: Lmd, tiny_config: Path, tiny_root: Path
):
    made = lmd(
        *("synthesize", "--output", "root", "--split", "mini_val", "--scenes", "1"),
        *("--samples", "3", "--height", "112", "--width", "200", "--planted"),
    )
    assert made.exit_code == 0, made.output
    given = ("score", "-c", tiny_config, "--method", "leave-one-out", "--resamples", "20")
    result = lmd(*given, "--dataroot", "root", "--output", "out", "--set", "detection=0.4")
    assert result.exit_code == 0, result.output
    rows = {
        row["score"]: row for row in csv.DictReader(Path("out/score.csv").read_text().splitlines())
    }
    listed = json.loads(Path("root/v1.0-mini/synthetic_planted.json").read_text())
    there = sum(row["amount"] > 0 for rows in listed.values() for row in rows)
    assert 10 < int(rows["planted_auroc"]["vehicles"]) <= there
    assert "false_alarm_auroc" in rows
    assert "planted false alarms (" in result.stdout
    assert "the network falls for" in result.stdout
    vehicles = list(csv.DictReader(Path("out/vehicles.csv").read_text().splitlines()))
    assert len(vehicles) > 5
    assert not any(row["annotation_token"].startswith("scene-") for row in vehicles)
    plain = lmd(*given, "--dataroot", tiny_root, "--output", "plain", "--limit", "1")
    assert "planted" not in plain.stdout
    assert "planted_auroc" not in Path("plain/score.csv").read_text()
