"""``lmd compare`` as a user calls it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lmd_cli.errors import ResultsError
from lmd_cli.evaluation.paired import MetricRow
from lmd_cli.evaluation.statistics import Interval
from lmd_cli.report.tables.comparison import beyond_zero, headline
from lmd_cli.workflows.compare import open_comparison
from lmd_cli.workflows.report import ReportOptions
from tests.support import made_up
from tests.support.calling import Lmd
from tests.support.run_pairs import FIGURES, before_and_after, detect_in, edit_record, run_of


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return before_and_after(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def own_pair(pair: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies, to be changed."""
    before, after = (Path(shutil.copytree(run, tmp_path / run.name)) for run in pair)
    return before, after


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_runs(lmd: Lmd, pair: tuple[Path, Path]):
    result = lmd("compare", *pair, "--no-survey")
    assert result.exit_code == 0, result.output
    assert re.search(r"iou +0\.5 +0\.6 +\+0\.1 +\[", result.stdout)
    assert re.search(
        r"after against before: IoU 0\.5, then 0\.6; false alarms of a sample 1, then 1; ",
        " ".join(result.stdout.split()),
    )
    said = "of 3 vehicles 2 have another decisive sensor (2 by parts, 1 by removal); 0 newly "
    assert said + "detected, 1 newly missed." in result.stdout
    assert (
        "single false alarms are compared where every run has detections in its folder: lmd detect"
        in result.stdout
    )
    assert "paired bootstrap of 3 whole samples" in result.stdout
    assert "With so few of them they are too narrow" in result.stdout
    folder = Path("results/compare/before-vs-after")
    assert {path.name for path in folder.iterdir()} == {
        *("comparison.html", "comparison.csv", "comparison.md", "changed_vehicles.csv"),
    }
    iou = [row for row in rows_of(folder / "comparison.csv") if row["metric"] == "iou"]
    assert [(row["run"], float(row["value"]), row["rows"]) for row in iou] == [
        ("before", 0.5, "3"),
        ("after", 0.6, "3"),
    ]
    assert float(iou[1]["difference"]) == pytest.approx(0.1)
    assert (float(iou[1]["low"]), float(iou[1]["high"])) == pytest.approx((0.0, 0.2))
    changed = rows_of(folder / "changed_vehicles.csv")
    assert [(r["token"], r["parts_before"], r["parts_after"], r["detection"]) for r in changed] == [
        ("v0", "only together", "radar", ""),
        ("v1", "camera", "not detected", "newly missed"),
    ]
    assert "| iou | 0.5 | 0.6 | +0.1 |" in (folder / "comparison.md").read_text()
    assert lmd("compare", *pair, "--no-survey", "--output", "again").exit_code == 0
    for path in folder.iterdir():
        assert path.read_bytes() == (Path("again") / path.name).read_bytes()
    page = (folder / "comparison.html").read_text()
    for title in ("False alarms of a sample", "New false alarms of a sample"):
        assert f">{title}</h3>" in page
    assert ">Maps of the difference</h2>" in page
    own = ("--unpaired", "--output", "own")
    assert lmd("compare", *pair, "--no-survey", *own).exit_code == 0
    assert "Maps of the difference" not in Path("own/comparison.html").read_text()


def test_false_alarms_map_and_nds(lmd: Lmd, own_pair: tuple[Path, Path]):
    """Of detections beside every run: metrics with intervals, mAP without, new false alarms."""
    before, after = own_pair
    shared = [("hit", 10.0, 0.0), ("false alarm", 20.0, 0.0)]
    detect_in(before, {"t0": [*shared, ("miss", 5.0, 0.0)], "t1": shared, "t2": []}, FIGURES)
    moved = [("false alarm", 21.0, 1.5), ("false alarm", 22.0, 0.0), ("duplicate", 9.0, 0.0)]
    better = FIGURES | {"mean_ap": 0.45}
    detect_in(
        after, {"t0": [("hit", 10.0, 0.0), *moved], "t1": [("hit", 5.0, 0.0)], "t2": []}, better
    )
    result = lmd("compare", *own_pair, "--no-survey", "--output", "out")
    assert result.exit_code == 0, result.output
    said = "mAP 0.4, then 0.45; NDS 0.5, then 0.5; "
    assert f"IoU 0.5, then 0.6; {said}" in result.stdout
    assert "1 newly missed; false alarms: 1 new, 1 gone." in result.stdout
    rows = {r["metric"]: r for r in rows_of(Path("out/comparison.csv")) if r["run"] == "after"}
    values = {name: float(row["value"]) for name, row in rows.items()}
    assert values["detections.recall"] == 1.0
    assert values["detections.precision"] == 2 / 5
    assert float(rows["detections.recall"]["difference"]) == pytest.approx(1 / 3)
    assert values["detections.false_alarms"] == 2 / 3
    assert rows["detections.false_alarms"]["low"] != ""
    assert (values["detections.AP.car"], values["detections.mATE"]) == (0.8, 0.3)
    assert {"detections.AP.bus", "detections.mAVE"}.isdisjoint(rows)
    whole = rows["detections.mAP"]
    assert (whole["value"], whole["rows"], whole["low"]) == ("0.45", "3", "")
    changed = rows_of(Path("out/changed_false_alarms.csv"))
    assert [(r["run"], r["change"], r["sample_token"], r["x"]) for r in changed] == [
        ("after", "new", "t0", "22.0"),
        ("after", "gone", "t1", "20.0"),
    ]
    page = Path("out/comparison.html").read_text()
    assert "after against before: false alarms, 1 new, 1 gone" in page
    assert ">False alarms that changed</h2>" in page
    shutil.rmtree(before / "detect")
    assert lmd("compare", *own_pair, "--no-survey", "--output", "out").exit_code == 0
    assert not Path("out/changed_false_alarms.csv").exists()


def test_detections_of_other_samples(own_pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture):
    one, two = {"t0": [("hit", 1.0, 0.0)]}, {"t1": [("hit", 1.0, 0.0)], "t0": []}

    def said(*boxes: dict[str, list[tuple[str, float, float]]]) -> str:
        for run, listed in zip(own_pair, boxes, strict=True):
            shutil.rmtree(run / "detect", ignore_errors=True)
            detect_in(run, listed, FIGURES)
        comparison = open_comparison(own_pair, ReportOptions(compute=False), resamples=20)
        return " ".join([headline(comparison, 0), *comparison.notes])

    assert "Detections are compared in 1 of the 3 samples." in said(one, two)
    assert "mAP and NDS are of different samples in the runs and are left out." in said(one, two)
    assert "NDS 0.5" not in said(one, two)
    assert "mAP and NDS are of all samples of lmd detect (1)." in said(one, one)
    away = {"t9": [("hit", 1.0, 0.0)]}
    assert "The detections have no sample in common with the runs and are" in said(away, away)
    edit_record(own_pair[0] / "detect", weights={"sha256": "0" * 64, "random": False})
    open_comparison(own_pair, ReportOptions(compute=False), resamples=20)
    assert "is of other weights than the run: its detections are left out" in caplog.text
    for name, text in (("detections.json", 'x\n"'), ("detection_metrics.json", "{}")):
        said(one, one)
        (own_pair[1] / "detect" / name).write_text(text)
        with pytest.raises(ResultsError, match="the same lmd detect writes it again") as error:
            open_comparison(own_pair, ReportOptions(compute=False))
        assert f"{own_pair[1] / 'detect' / name} is damaged (" in str(error.value)


def test_three_runs(lmd: Lmd, tmp_path: Path):
    runs = [run_of(tmp_path / name, hits=(10, 10 + i, 10)) for i, name in enumerate("abc")]
    result = lmd("compare", *runs, "--no-survey", "--output", "out", "--resamples", 50)
    assert result.exit_code == 0, result.output
    assert "b against a: " in result.stdout
    assert "c against a: " in result.stdout
    iou = [row for row in rows_of(Path("out/comparison.csv")) if row["metric"] == "iou"]
    assert [row["run"] for row in iou] == ["a", "b", "c"]
    assert [float(row["value"]) for row in iou] == pytest.approx([30 / 60, 31 / 60, 32 / 60])


def test_runs_of_one_name_are_told_apart(lmd: Lmd, tmp_path: Path):
    (tmp_path / "x").mkdir()
    runs = [run_of(tmp_path / "run"), run_of(tmp_path / "x" / "run")]
    twice = [f"1: {runs[0]}", f"2: {runs[0]}"]
    for given, labels in ((runs, [str(run) for run in runs]), ([runs[0]] * 2, twice)):
        assert lmd("compare", *given, "--no-survey", "--output", "out").exit_code == 0
        rows = [row for row in rows_of(Path("out/comparison.csv")) if row["metric"] == "iou"]
        assert [row["run"] for row in rows] == labels
        assert (rows[1]["difference"], rows[1]["low"], rows[1]["high"]) == ("0.0", "0.0", "0.0")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"samples": {"count": 4, "sha256": "ef" * 32}}, "samples.count ({}: 3, {}: 4)"),
        ({"schedule": {"stride": 2, "count": 1}}, "schedule.stride ({}: 1, {}: 2)"),
        ({"perturbed": ["radar"]}, "perturbed ({}: None, {}: ['radar'])"),
        ({"config_detection": 0.4}, "config.detection ({}: 'auto', {}: 0.4)"),
    ],
)
def test_runs_of_another_protocol_are_refused(
    lmd: Lmd, own_pair: tuple[Path, Path], entries: dict[str, Any], said: str
):
    edit_record(own_pair[1], **entries)
    result = lmd("compare", *own_pair, "--no-survey")
    assert result.exit_code == 2
    assert f"these runs cannot be compared with {own_pair[0]}:" in result.stderr
    assert said.format(*(run.name for run in own_pair)) in result.stderr
    if "samples" not in entries:  # with the samples that both have, they would be refused as well
        assert "--common" not in result.stderr
        assert lmd("compare", *own_pair, "--no-survey", "--common").stderr == result.stderr
    assert not Path("results").exists()


def test_rounding_is_no_difference():
    def row(change: float) -> MetricRow:
        return MetricRow("m", "", [0.5, 0.5 + change], [3, 3], [Interval(change, change, change)])

    verdicts = [beyond_zero(row(change), 0) for change in (0.1, -0.1, 4e-7, -4e-7, 0.0)]
    assert verdicts == [True, True, None, None, False]


def test_the_page_names_runs_by_their_hashes(lmd: Lmd, pair: tuple[Path, Path]):
    assert lmd("compare", *pair, "--no-survey", "--output", "out").exit_code == 0
    page = Path("out/comparison.html").read_text()
    hashes = [hashlib.sha256((run / "run.json").read_bytes()).hexdigest() for run in pair]
    for run, value in zip(pair, hashes, strict=True):
        assert re.search(rf"<td>{run.name}</td>\s*<td>{value[:12]}</td>\s*<td>ab", page)
    margin = re.search(r'@bottom-left { content: "(.*?)"', page)
    assert margin
    printed = re.sub(r"\\([0-9a-f]{6})", lambda m: chr(int(m[1], 16)), margin[1])
    assert printed == "; ".join(
        f"run {run.name}, run.json sha256 {value}" for run, value in zip(pair, hashes, strict=True)
    )


def test_other_removals_are_refused(lmd: Lmd, pair: tuple[Path, Path], tmp_path: Path):
    other = run_of(tmp_path / "other", replace(made_up.survey(), removal="replaced"))
    result = lmd("compare", pair[0], other, "--no-survey")
    assert result.exit_code == 2
    assert f"survey.removal ({pair[0].name}: 'zeroed', other: 'replaced')" in result.stderr


def test_every_field_is_named(lmd: Lmd, own_pair: tuple[Path, Path]):
    model = {"name": "simplebev", "modalities": ["camera", "lidar"], "output": "instance"}
    edit_record(own_pair[1], config_model=model, schedule={"stride": 2, "count": 3})
    said = lmd("compare", *own_pair, "--no-survey").stderr
    assert len(re.findall(r"\n  ", said)) == 4
    for field in ("model.modalities", "model.output", "schedule.stride", "schedule.count"):
        assert f"{field} (" in said


def test_other_samples_are_refused_or_left_out(lmd: Lmd, tmp_path: Path, pair: tuple[Path, Path]):
    short = run_of(tmp_path / "short", samples=2, hits=(10, 14), status="unfinished")
    result = lmd("compare", pair[0], short, "--no-survey")
    assert result.exit_code == 2
    name = pair[0].name
    assert f"samples ({name}: 3, short: 2; 1 only in {name}, such as t2)" in result.stderr
    assert "--common compares the samples that all runs have" in result.stderr
    result = lmd("compare", pair[0], short, "--no-survey", "--common")
    assert result.exit_code == 0, result.output
    assert re.search(r"iou +0\.5 +0\.6 +\+0\.1", result.stdout)
    assert "short has 2 of 3 samples." in result.stdout
    assert f"{short} has no survey: lmd report {short} makes it." in result.stdout
    assert "objects." not in result.stdout


def test_each_runs_own_samples(lmd: Lmd, tmp_path: Path):
    """Two weathers: no sample in common, so nothing is paired and no vehicle is compared."""
    dry = run_of(tmp_path / "dry", made_up.survey(), hits=(10, 12, 14))
    rain = run_of(tmp_path / "rain", made_up.survey("x"), hits=(6, 8, 10), text="x")
    edit_record(rain, schedule={"stride": 2, "count": 1})
    hits = {f"t{i}": [("hit", 5.0, 0.0)] for i in range(3)}
    detect_in(dry, hits, FIGURES)
    detect_in(rain, {f"{t}x": [*h, ("false alarm", 9.0, 0.0)] for t, h in hits.items()}, FIGURES)
    given = ("compare", dry, rain, "--no-survey", "--output", "out")
    assert "--unpaired compares each run's own" in lmd(*given, "--common").stderr
    assert "either --common or --unpaired" in lmd(*given, "--common", "--unpaired").stderr
    result = lmd(*given, "--unpaired")
    assert result.exit_code == 0, result.output
    said = "rain against dry: IoU 0.6, then 0.4; mAP 0.4, then 0.4; NDS 0.5, then 0.5; "
    assert said in result.stdout
    assert "newly" not in result.stdout
    assert (
        "The runs have different samples: a difference may come from the samples" in result.stdout
    )
    assert "bootstrap of 6 whole samples, of all runs together." in result.stdout
    rows = {r["metric"]: r for r in rows_of(Path("out/comparison.csv")) if r["run"] == "rain"}
    assert float(rows["iou"]["low"]) < -0.2 < float(rows["iou"]["high"])
    assert (rows["objects.detected"]["rows"], rows["detections.precision"]["value"]) == ("3", "0.5")
    page = Path("out/comparison.html").read_text()
    assert "<b>Other samples.</b> Each run has its own" in page
    assert ">Vehicles that changed</h2>" not in page
    edit_record(rain, schedule={"stride": 1, "count": 2})
    refused = lmd(*given, "--unpaired")
    assert refused.exit_code == 2
    assert "schedule.count (dry: 1, rain: 2)" in refused.stderr
    assert "schedule.stride" not in refused.stderr


def test_one_run_is_no_comparison(lmd: Lmd, pair: tuple[Path, Path]):
    result = lmd("compare", pair[0])
    assert result.exit_code == 2
    assert "give at least two: lmd compare RUN RUN" in result.stderr


def test_other_variants_are_compared_and_said(lmd: Lmd, own_pair: tuple[Path, Path]):
    edit_record(own_pair[1], config_variants=list(reversed(made_up.VARIANTS)))
    result = lmd("compare", *own_pair, "--no-survey")
    assert result.exit_code == 0, result.output
    said = "PCC and MSE are of each run's first variant: identity-ratio, uniform-identity."
    assert said in result.stdout


class Page(HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_the_page_escapes_and_fetches_nothing(lmd: Lmd, pair: tuple[Path, Path], tmp_path: Path):
    hostile = before_and_after(tmp_path / "hostile", made_up.HOSTILE)
    for name, runs in (("calm", pair), ("wild", hostile)):
        assert lmd("compare", *runs, "--no-survey", "--output", name).exit_code == 0
    calm, wild = (Path(name, "comparison.html").read_text() for name in ("calm", "wild"))
    assert Page(calm).tags == Page(wild).tags
    assert "http://" not in wild.replace("http://www.w3.org", "")
    assert "https://" not in wild
    assert not re.search(r"(src|href)=\"(?!#|data:)", wild)
    assert re.search(r"default-src &#39;none&#39;; script-src &#39;sha256-", wild)
    for section in ("Every metric", "Vehicles that changed", "Maps of the difference"):
        assert f">{section}</h2>" in wild


def test_a_survey_that_is_lacking_is_made(lmd: Lmd, tiny_config: Path):
    """A real run, and the same explained by other rules; a survey that is there is taken."""
    assert lmd("evaluate", "-c", tiny_config, "--output", "a", "--limit", 2).exit_code == 0
    shutil.copytree("a", "b")
    edit_record(Path("b"), config_explain="identity-identity")
    given = ("--viewer", 1, "--removal", "replaced", "--limit", 1)
    assert lmd("report", "a", *given).exit_code == 0
    made = Path("a/survey/survey.json").read_bytes()
    result = lmd("compare", "a", "b", "--output", "out", "--common")
    assert result.exit_code == 0, result.output
    assert re.findall(r"survey: (.*) to do", result.stderr) == ["2"]
    assert Path("a/survey/survey.json").read_bytes() == made  # whatever its options were
    other = json.loads(Path("b/survey/survey.json").read_text())
    assert (other["variant"], other["removal"]) == ("identity-identity", "replaced")
    assert ", identity-identity), so a difference of parts need not be" in result.stdout
    rows = {r["metric"]: r for r in rows_of(Path("out/comparison.csv")) if r["run"] == "b"}
    assert float(rows["objects.logit.total"]["difference"]) == 0.0  # the same network
    assert float(rows["objects.logit.bias"]["difference"]) != 0.0  # split by other rules
    assert "No intervals: there is one sample, and nothing to resample." in result.stdout
