"""Removal in tables, lists and pages: which question each number answers."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmd_cli.config.loading import load_config
from lmd_cli.evaluation.ground.vehicles import object_fields
from lmd_cli.evaluation.metrics import bias_share
from lmd_cli.evaluation.scores.against_ground_truth import Vehicle, bias_shares
from lmd_cli.report.page.build import build_page
from lmd_cli.report.page.object_lists import all_objects
from lmd_cli.report.page.removal import removal_tables
from lmd_cli.report.page.vehicle_charts import objects_values
from lmd_cli.results.read_run import read_run
from lmd_cli.results.survey_files import FORMAT
from lmd_cli.workflows.evaluate import evaluate
from lmd_cli.workflows.report import ReportOptions, make_report
from tests.support import made_up
from tests.support.undated import undated

PAIR = ("camera", "radar")
CUTS = {"camera": ["camera"], "radar": ["radar"], "camera+radar": ["camera", "radar"]}


def texts(table: Any) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_tables_of_the_page():
    made = made_up.survey()
    tables = removal_tables(made, {"t0": 0})
    assert tables is not None
    subsets = {row[0]: row[1:] for row in texts(tables["subsets"])}
    assert subsets == {
        "camera and radar": ["2 of 3", "0.67 (0 to 1.0)", "3", "0", "0", "0.50"],
        "radar": ["2 of 3", "0.67 (0 to 1.0)", "9", "6", "2.0", "0.40"],
        "camera": ["2 of 3", "0.67 (0 to 1.0)", "3", "0", "0", "0.25"],
        "none": ["0 of 3", "0", "0", "0", "0", "0"],
    }
    assert tables["subsets"].caption.endswith("(95 % intervals: 1000 resamples of 3 samples)")
    questions = {row[0]: row[1:] for row in texts(tables["questions"])}
    assert questions == {
        "any of several sensors alone": ["0", "1", "0"],
        "only the camera alone": ["1", "0", "0"],
        "only the radar alone": ["0", "1", "0"],
        "only several sensors together": ["1", "0", "0"],
        "all detected annotations": ["2", "2", "0"],
    }
    counts = {row[1]: row[0] for row in texts(tables["conclusions"])}
    assert counts == {
        "of 3 annotations are detected": "2",
        "stay detected without the camera": "2",
        "stay detected without the radar": "1",
        "stay detected whichever one sensor fails": "1",
        "are lost without one certain sensor": "1",
        "get two answers": "2",
        "of the 1 missed ones are detected with a sensor removed": "1",
        "are detected with no sensor": "0",
        "detections have no annotation": "1",
        "of these go without the camera": "1",
        "of these go without the radar": "0",
    }
    rows = texts(tables["conclusions"])
    assert {row[2] for row in rows} == {"the network", "removal", "parts and removal"}
    assert all(len(row[3]) > 20 and len(row[4]) > 20 for row in rows)
    lists = {table.name: table for table in tables["lists"]}
    (fails,) = (dict(zip(lists["fails"].header, row, strict=True)) for row in lists["fails"].rows)
    assert (fails["show"].sample, fails["show"].object) == (0, 0)
    assert fails["lost without (removal)"].text == "radar"
    assert (fails["distance (m)"].text, fails["weather"].text) == ("12", "no rain, day")
    assert fails["vehicle or detection"].text == "v0"
    assert fails["score without radar"].text == "-1"
    assert [row[-1] for row in texts(lists["two_answers"])] == ["v0", "v1"]
    (gained,) = texts(lists["gained"])
    assert gained[-1] == "v2"
    assert "radar" in gained
    (false,) = (dict(zip(lists["false"].header, row, strict=True)) for row in lists["false"].rows)
    assert (false["show"].sample, false["show"].object) == (0, 1)  # after the sample's vehicle
    assert false["lost without (removal)"].text == "camera"
    assert false["vehicle or detection"].text == "detection 1"


def test_the_list_of_all_objects_of_the_viewer():
    made = made_up.survey()
    table = all_objects(made, {"t0": 1, "t2": 0})
    assert table is not None
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [row["vehicle or detection"].text for row in rows] == ["v2", "detection 1", "v0"]
    assert [row["the network"].text for row in rows] == [
        *("misses", "detects without annotation", "detects"),
    ]
    assert [row["show"].sample for row in rows] == [0, 1, 1]
    assert table.caption == "3 vehicles and detections of the samples in the viewer"
    assert all_objects(made, {}) is None


def test_lists_say_what_they_leave_out():
    made = made_up.survey()
    header = object_fields(made.parts)
    far = header.index("distance")
    row = list(made.objects[0])
    made.objects = [(*row[:far], float(500 - n), *row[far + 1 :]) for n in range(300)]
    tables = removal_tables(made, {})
    assert tables is not None
    (fails,) = (table for table in tables["lists"] if table.name == "fails")
    assert fails.caption.endswith("(the nearest 200 of 300, the rest in survey/objects.csv)")
    distances = [float(row[1]) for row in texts(fails)]
    assert distances == sorted(distances)
    assert (len(distances), distances[0]) == (200, 201)


def test_the_page_says_which_question_it_answers(tmp_path: Path):
    run = read_run(made_up.run_folder(tmp_path / "run"))
    text = build_page(run, made_up.survey()).decode()
    for table in ("questions", "conclusions", "fails", "two_answers", "gained", "false"):
        assert text.count(f'id="{table}"') == 1
    labels = re.findall(r'data-shows="\w+"[^>]*> ([^<]*)</label>', text)
    assert len(labels) == 3
    assert all(label.endswith(("(removal)", "(parts)")) for label in labels)
    assert "would be enough:" not in text


def test_one_bias_share():
    parts = {"camera": 1.0, "radar": -2.0, "bias": -1.0}
    assert bias_share(parts) == 0.25
    assert bias_share(dict.fromkeys(parts, 0.0)) is None
    assert bias_shares([Vehicle("v", "i", {}, True, parts)]) == [0.25]
    made = made_up.survey()
    values = objects_values(made)
    assert values is not None
    expected = [1 / 3, 2 / 4.5, 3 / 6]  # 2, k / 2 and -1 - k
    assert values["bias"] == pytest.approx(np.mean(expected))


def test_a_large_bias_share_is_pointed_out(tmp_path: Path):
    run, made = read_run(made_up.run_folder(tmp_path / "run")), made_up.survey()
    text = build_page(run, made).decode()
    assert '<p class="banner">The <em>bias share</em>' in text
    assert "At the output the bias has 50 % of the norms" in text
    bias = object_fields(made.parts).index("part_bias")
    made.objects = [(*row[:bias], 0.1, *row[bias + 1 :]) for row in made.objects]
    made.layers = made.layers[:1]
    text = build_page(run, made).decode()
    assert "<p>The <em>bias share</em>" in text
    assert "At the output the bias has" not in text


def test_a_survey_of_an_earlier_version_is_done_again(
    tiny_config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run = tmp_path / "run"
    evaluate(load_config(str(tiny_config)), run, limit=1)
    page = make_report(run).read_bytes()
    record = json.loads((run / "survey" / "survey.json").read_text())
    (run / "survey" / "survey.json").write_text(json.dumps({**record, "format": FORMAT - 1}))
    left_out = make_report(run, tmp_path / "page.html", ReportOptions(compute=False)).read_text()
    assert f"has format {FORMAT - 1}, this version&#39;s has {FORMAT}: it is left out" in left_out
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert undated(make_report(run).read_bytes()) == undated(page)
    assert "the samples are surveyed again" in caplog.text
    assert json.loads((run / "survey" / "survey.json").read_text())["format"] == FORMAT
    other = (
        "The survey (maps, layers, vehicles, removal) was made by other code of lmd than the run"
    )
    assert other not in page.decode()
    made = json.loads((run / "survey" / "made.json").read_text())
    made["code"]["sha256"] = "0" * 64
    (run / "survey" / "made.json").write_text(json.dumps(made))
    assert other in make_report(run).read_text()
