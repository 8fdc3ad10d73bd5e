"""``lmd report`` as a user calls it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.calling import Lmd


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
    result = lmd("report", "run", "--output", "elsewhere/page.html", "--no-survey")
    assert result.exit_code == 0
    assert Path("elsewhere/page.html").read_text() == text  # the survey is there


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
