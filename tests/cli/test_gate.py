"""``lmd gate`` as CI calls it."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.calling import Lmd
from tests.support.run_pairs import FIGURES, before_and_after, detect_in, edit_record, run_of


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return before_and_after(tmp_path_factory.mktemp("pair"))


def required(*expressions: str) -> list[str]:
    given = [word for expression in expressions for word in ("--require", expression)]
    return ["--no-survey", *given]


def test_a_run_that_passes(lmd: Lmd, pair: tuple[Path, Path]):
    asked = required("iou>=0.5", "objects.detected[distance>10]>=0.6", "residual<1e-5")
    result = lmd("gate", pair[0], *asked, "--output", "out")
    assert result.exit_code == 0, result.output
    assert re.search(r"ok +iou>=0\.5 +0\.5 +\[0\.5, 0\.5\] +3 +0\.5 +0", result.stdout)
    assert "files in out: gate.html, gate.json, gate.xml" in result.stdout
    verdict = json.loads(Path("out/gate.json").read_text())
    assert (verdict["format"], verdict["passed"], verdict["baseline"]) == (1, True, None)
    assert [(r["metric"], r["rows"]) for r in verdict["requirements"]] == [
        *(("iou", 3), ("objects.detected", 3), ("residual", 3))
    ]
    assert verdict["requirements"][2]["value_low"] is None  # the largest has no interval
    suite = ElementTree.parse("out/gate.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "0")
    page = Path("out/gate.html").read_text()
    assert "Does the run pass?" in page
    assert f"Passed: {pair[0]} meets all 3 requirements." in page


def test_metrics_of_detections(lmd: Lmd, pair: tuple[Path, Path], tmp_path: Path):
    run = Path(shutil.copytree(pair[0], tmp_path / "run"))
    asked = required("detections.recall>=0.6", "detections.mAP>=0.4")
    refused = lmd("gate", run, *asked)
    assert refused.exit_code == 2
    assert "those of detections need lmd detect --output RUN/detect" in refused.stderr
    detect_in(run, {"t0": [("hit", 1.0, 0.0)] * 2, "t1": [("miss", 1.0, 0.0)]}, FIGURES)
    result = lmd("gate", run, *asked)
    assert result.exit_code == 0, result.output
    assert re.search(r"ok +detections\.recall>=0\.6 +0\.667 +\[0, 1\] +2 ", result.stdout)
    assert re.search(r"ok +detections\.mAP>=0\.4 +0\.4 +2 ", result.stdout)
    made_of = json.loads((run / "gate" / "gate.json").read_text())["results_sha256"]
    assert {"detect/detections.csv", "detect/detection_metrics.json"} <= set(made_of)
    refused = lmd("gate", run, *required("detections.map>=0.4"))
    assert "did you mean detections.mAP?" in refused.stderr


def test_a_run_that_fails(lmd: Lmd, pair: tuple[Path, Path]):
    asked = required("objects.detected>=baseline", "iou>=baseline+0.05")
    result = lmd("gate", pair[1], *asked, "--baseline", pair[0], "--output", "out")
    assert result.exit_code == 1
    assert "FAIL objects.detected>=baseline: 0.3333 is not >= 0.6667" in result.stdout
    assert re.search(r"ok +iou>=baseline\+0\.05 +0\.6", result.stdout)
    suite = ElementTree.parse("out/gate.xml").getroot()[0]
    assert [case.get("name") for case in suite if case.find("failure") is not None] == [
        "objects.detected>=baseline"
    ]
    failed, met = json.loads(Path("out/gate.json").read_text())["requirements"]
    assert (failed["passed"], met["passed"]) == (False, True)
    assert failed["baseline"] == pytest.approx(2 / 3)
    assert met["margin"] == pytest.approx(0.05)
    page = Path("out/gate.html").read_text()
    said = f"Failed: {pair[1]} misses 1 of 2 requirements."
    assert page.index(said) < page.index("Every metric")  # the verdict, then the comparison


def test_files_go_into_the_runs_folder(lmd: Lmd, tmp_path: Path):
    run = run_of(tmp_path / "run")
    assert lmd("gate", run, *required("iou>=0.5")).exit_code == 0
    assert {path.name for path in (run / "gate").iterdir()} == {
        *("gate.html", "gate.json", "gate.xml")
    }


def test_nothing_selected_is_not_met(lmd: Lmd, pair: tuple[Path, Path]):
    asked = required("objects.detected[distance>1000]>=0")
    result = lmd("gate", pair[0], *asked, "--output", "out")
    assert result.exit_code == 1
    assert "not defined: nothing that it is made of was measured or selected" in result.stdout
    assert json.loads(Path("out/gate.json").read_text())["requirements"][0]["value"] is None


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("precision>=0.5", "there is no metric 'precision'\nthere are: iou, objects.detected, "),
        ("IOU > 0.5", "there is no metric 'IOU'; did you mean iou?\nthere are: iou, "),
        ("objects.share.sonar>0", "objects.share.camera, objects.share.radar, "),
        ("iou[distance>40]>=0.5", "iou is not about vehicles"),
        ("objects.detected[range>40]>=0.5", "no column 'range'; there are: sample_token, scene,"),
        ("objects.detected[category==4]>=0.5", "category is text, and is compared with 4.0"),
        ("objects.detected[distance==far]>=0.5", "distance is a number, and is compared with"),
        ("iou>=baseline", "needs a run to compare with: --baseline RUN"),
        ("iou>>0.5", "is no requirement"),
    ],
)
def test_expressions_that_mean_nothing(
    lmd: Lmd, pair: tuple[Path, Path], expression: str, said: str
):
    result = lmd("gate", pair[0], *required(expression))
    assert result.exit_code == 2
    assert f"--require {expression!r}" in result.stderr
    assert said in result.stderr
    assert not (pair[0] / "gate").exists()


def test_without_a_survey_there_are_no_vehicles(lmd: Lmd, tmp_path: Path):
    result = lmd("gate", run_of(tmp_path / "run"), *required("objects.detected>0"))
    assert result.exit_code == 2
    assert "those of vehicles need a survey with vehicles" in result.stderr


def test_nothing_required(lmd: Lmd, pair: tuple[Path, Path]):
    result = lmd("gate", pair[0])
    assert result.exit_code == 2
    assert "give at least one --require 'METRIC>=NUMBER'" in result.stderr
    assert "all metrics: lmd_cli/docs/reference.md, Metrics by name" in result.stderr


@pytest.mark.parametrize("options", [(), ("--baseline",)])
def test_what_a_reader_must_know_is_noted(lmd: Lmd, tmp_path: Path, options: tuple[str, ...]):
    """With a baseline and without: random weights, some of the samples, an interval that holds
    values that fail."""
    run = run_of(tmp_path / "run", hits=(10, 14), samples=2, status="unfinished", random=True)
    against = [*options, run] if options else []
    result = lmd("gate", run, *required("iou>=0.55"), *against, "--output", "out")
    assert result.exit_code == 0, result.output
    notes = (
        "run has random weights: the numbers say nothing about a trained network.",
        "run has 2 of 3 samples.",
        "iou>=0.55: the value passes, but the interval reaches below the bound; see --confident.",
    )
    page = html.unescape(Path("out/gate.html").read_text())
    for note in notes:
        assert note in " ".join(result.stdout.split())
        assert note in page


def test_a_baseline_of_another_protocol(lmd: Lmd, pair: tuple[Path, Path], tmp_path: Path):
    other = Path(shutil.copytree(pair[0], tmp_path / "other"))
    edit_record(other, schedule={"stride": 2, "count": 1})
    result = lmd("gate", pair[1], *required("iou>=baseline"), "--baseline", other)
    assert result.exit_code == 2
    assert "schedule.stride (other: 2, after: 1)" in result.stderr


def test_the_report_shows_the_verdict(lmd: Lmd, tmp_path: Path):
    run = run_of(tmp_path / "run")

    def page() -> str:
        assert lmd("report", run, "--no-survey").exit_code == 0
        return (run / "report.html").read_text()

    assert 'aria-label="Verdict"' not in page()
    assert lmd("gate", run, *required("iou>=0.5", "residual<1e-9")).exit_code == 1
    text = page()
    said = "Failed: run misses 1 of 2 requirements."
    assert text.index(said) < text.index("This page")
    assert "1e-07 is not &lt; 1e-09" in text
    assert "Out of date" not in text
    changed = (run / "samples.csv").read_text().replace(",10,20,", ",2,20,")
    (run / "samples.csv").write_text(changed)
    said = "this verdict of lmd gate is about other results; samples.csv changed since."
    assert f"Out of date: {said} Run the same lmd gate again." in page()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"format": 1', '"format": 2', "(format: Input should be less than or equal to 1)"),
        ('"iou>=0.5"', '"iou"', "--require 'iou' is no requirement"),
        ('"value": 0.5', '"value": NaN', "(requirements.0.value: Input should be a finite number)"),
    ],
)
def test_a_damaged_verdict(lmd: Lmd, tmp_path: Path, old: str, new: str, said: str):
    run = run_of(tmp_path / "run")
    lmd("gate", run, *required("iou>=0.5"))
    verdict = run / "gate" / "gate.json"
    assert old in verdict.read_text()
    verdict.write_text(verdict.read_text().replace(old, new))
    result = lmd("report", run, "--no-survey")
    assert result.exit_code == 2
    assert f"{verdict} is damaged" in result.stderr
    assert said in result.stderr
    assert "run the same lmd gate again" in result.stderr
