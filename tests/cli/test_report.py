"""``lmd report`` as a user calls it."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmd_cli.report.page.build import build_page
from lmd_cli.results.read_run import read_run
from tests.support import made_up
from tests.support.calling import Lmd
from tests.support.undated import undated


def test_a_page_of_a_run(lmd: Lmd, tiny_config: Path):
    assert lmd("evaluate", "-c", tiny_config, "--output", "run", "--limit", 1).exit_code == 0
    result = lmd("report", "run", "--viewer", 1)
    assert result.exit_code == 0, result.output
    last = result.stdout.splitlines()[-1]
    assert last.startswith("page: run/report.html (")
    assert last.endswith(" MB); open it in a browser")
    assert re.search(r"survey: 1/1, .* in all, \d+% waiting for data", result.stderr)
    text = Path("run/report.html").read_text()
    assert "1 of 6 samples are in: the run was limited, or cut off." in text
    assert 'id="viewer-data"' in text
    assert "The data are synthetic" in text  # a root of ours, given by its folder
    result = lmd("report", "run", "--output", "elsewhere/page.html", "--no-survey")
    assert result.exit_code == 0
    assert Path("elsewhere/page.html").read_text() == text  # the survey is there
    table = result.stdout.splitlines()
    assert any(line.startswith(" sensors left ") for line in table)
    assert any("annotations of" in line and "in 1 scene" in line for line in table)
    made = json.loads(lmd("report", "run", "--json").stdout)
    rows = list(csv.DictReader(Path("run/survey/samples.csv").read_text().splitlines()))
    (every, no_camera, _, none) = made["tables"]["removal"]
    assert (every["removed"], no_camera["sensors"]) == ([], ["radar"])
    assert no_camera["new_false_alarms"] == int(rows[0]["new_false_without_camera"])
    assert none["iou"] == pytest.approx(
        int(rows[0]["intersection_without_camera+radar"])
        / int(rows[0]["union_without_camera+radar"])
    )
    assert every["detected_share_low"] is None  # one sample has no interval


def test_other_data_are_not_called_synthetic(tmp_path: Path):
    run = read_run(made_up.run_folder(tmp_path / "run"))
    digest = "0" * 64
    for name, said in (
        ("synthetic-0__CAM", True),
        ("n015__CAM", False),
        ("synthetic-a.jpg", False),
    ):
        (tmp_path / "run" / "data.sha256").write_text(f"{digest}  samples/CAM/{name}\n")
        assert ("The data are synthetic" in build_page(run, None).decode()) == said


def test_a_survey_is_made_anew_when_asked(lmd: Lmd, tiny_config: Path):
    assert lmd("evaluate", "-c", tiny_config, "--output", "run", "--limit", 1).exit_code == 0
    assert lmd("report", "run").exit_code == 0
    changes = Path("run/survey/samples.csv")
    as_made, page = changes.read_bytes(), Path("run/report.html").read_bytes()
    changes.write_bytes(as_made.replace(b"scene-", b"other-"))
    result = lmd("report", "run")
    assert result.exit_code == 2
    assert "samples.csv changed after the survey was made" in result.stderr
    assert "lmd report run --no-resume" in result.stderr
    assert Path("run/report.html").read_bytes() == page
    result = lmd("report", "run", "--no-resume")
    assert "survey: 1/1" in result.stderr
    assert changes.read_bytes() == as_made
    assert undated(Path("run/report.html").read_bytes()) == undated(page)
    result = lmd("report", "run", "--no-resume", "--no-survey")
    assert result.exit_code == 2
    assert "give one of the two" in result.stderr


@pytest.mark.parametrize(
    ("folder", "said"),
    [("nowhere", "nowhere is not a folder"), (".", "holds no run.json")],
)
def test_folders_that_are_not_runs(lmd: Lmd, folder: str, said: str):
    result = lmd("report", folder)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert "lmd evaluate" in result.stderr


HANDED_OVER = """
import sys
sys.lmd_ran = getattr(sys, "lmd_ran", 0) + 1
def model(**options):
    raise RuntimeError("it ran")
"""


@pytest.fixture
def handed_over(lmd: Lmd, tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run's folder whose record names code that lies beside it."""
    assert lmd("evaluate", "-c", tiny_config, "--output", "run", "--limit", 1).exit_code == 0
    Path("handed.py").write_text(HANDED_OVER)
    record = json.loads(Path("run/run.json").read_text())
    section = {"target": "handed:model", "options": {"depth": 3}, "output": "segmentation"}
    record["config"]["model"] = {**section, "modalities": ["camera", "radar"]}
    record["config"]["data"] = {"target": "handed:model"}
    record["config_file"] = str(Path("handed.yaml").resolve())
    Path("run/run.json").write_text(json.dumps(record))
    monkeypatch.setattr(sys, "lmd_ran", 0, raising=False)
    yield Path("run")
    sys.modules.pop("handed", None)


def own_config(folder: Path, options: str) -> Path:
    """The config of somebody whose code it is."""
    model = (
        f"{{target: 'handed:model', options: {options}, modalities: [camera, radar], output: x}}"
    )
    path = folder / "handed.yaml"
    path.write_text(f"data: {{target: 'handed:model'}}\nmodel: {model}\n")
    return path


def test_code_that_a_folder_names_is_not_run(lmd: Lmd, handed_over: Path, caplog):
    result = lmd("report", handed_over)
    assert result.exit_code == 0, result.output
    said = "data.target 'handed:model' in run/run.json is code that was not run"
    assert said in caplog.text
    assert "--trust to run what the folder names" in caplog.text
    page = (handed_over / "report.html").read_text()
    assert "is code that was not run" in page
    assert 'id="viewer-data"' not in page
    lmd("report", handed_over, "--config", own_config(Path(), "{depth: 4}"))  # other arguments
    assert sys.lmd_ran == 0


def test_a_run_that_goes_on_does_not_run_it_either(lmd: Lmd, handed_over: Path, tiny_config: Path):
    result = lmd("evaluate", "-c", tiny_config, "--output", handed_over)
    assert result.exit_code == 2
    assert "holds the results of another run" in result.stderr
    assert sys.lmd_ran == 0


@pytest.mark.parametrize("reason", ["--trust", "--config"])
def test_code_that_the_user_trusts_is_run(lmd: Lmd, handed_over: Path, reason: str):
    given = [] if reason == "--trust" else [own_config(Path(), "{depth: 3}")]
    result = lmd("report", handed_over, reason, *given)
    assert result.exit_code == 2
    assert "RuntimeError: it ran" in result.stderr
    assert sys.lmd_ran == 1
