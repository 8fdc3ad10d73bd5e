"""``lmd report`` as a user calls it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from calling import Lmd


def test_a_page_of_a_run(lmd: Lmd, tiny_config: Path):
    assert lmd("evaluate", "-c", tiny_config, "--output", "run", "--limit", 1).exit_code == 0
    result = lmd("report", "run", "--viewer", 1)
    assert result.exit_code == 0, result.output
    last = result.stdout.splitlines()[-1]
    assert last.startswith("page: run/report.html (")
    assert last.endswith(" MB); open it in a browser")
    assert re.search(r"survey: 1/1, .* in all, \d+% waiting for data", result.stderr)
    text = Path("run/report.html").read_text()
    assert "This run is not finished: 1 of 6 samples are in." in text
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
