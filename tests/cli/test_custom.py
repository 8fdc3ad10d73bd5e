"""A newcomer's file and YAML, from extending.md word for word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import lmd_cli
from lmd_cli.cli.app import app

PAGE = (Path(lmd_cli.__file__).parent / "docs" / "extending.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


COMMANDS = {line.split()[1]: line for line in blocks("bash")[0].strip().splitlines()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's two files, and nothing else."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "scanner.py").write_text(blocks("python")[0])
    (folder / "scanner.yaml").write_text(blocks("yaml")[0])
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, str]:
    """What each of the page's commands prints, one after the other in one folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return {name: called(line) for name, line in COMMANDS.items() if name != "inspect"}


def called(line: str) -> str:
    result = CliRunner().invoke(app, line.split()[1:])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_example_is_at_most_forty_lines():
    assert len(blocks("python")[0].splitlines()) <= 40
    assert list(COMMANDS) == ["inspect", "check", "evaluate", "table", "decompose", "report"]


def test_a_process_of_its_own_finds_the_module_beside_the_yaml(folder: Path):
    paths = [str(Path(lmd_cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "lmd_cli", *COMMANDS["inspect"].split()[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every one has a rule" in done.stdout
    assert "max_pool2d" in done.stdout


def test_the_check_and_the_table(folder: Path, said: dict[str, str]):
    assert "FAIL" not in said["check"]
    results = folder / "results" / "scanner"
    assert "sensor" not in said["evaluate"]
    assert "same scenes" not in said["evaluate"]
    assert "PCC mri_p/mri" in (results / "table.csv").read_text()
    record = json.loads((results / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["conservation_residual"] < 1e-5
    assert record["replay_deviation"] < 1e-4
    assert (results / "table2" / "table2.md").read_text().count("Identity") >= 4


def test_the_picture_and_its_numbers(folder: Path, said: dict[str, str]):
    own = folder / "results" / "scanner" / "decompose" / "00"
    assert "decomposition.png" in said["decompose"]
    picture = np.asarray(Image.open(own / "decomposition.png").convert("RGB"))
    assert picture.std() > 5  # something is drawn
    with np.load(own / "parts.npz") as arrays:
        assert arrays["total"].shape == (1, 32, 32)
        parts = arrays["mri"] + arrays["pet"] + arrays["bias"]
        assert np.allclose(parts, arrays["total"], atol=1e-5)
        assert arrays["ground_truth"].shape == (32, 32)


def test_the_page(folder: Path, said: dict[str, str]):
    """The page of ``lmd report`` is about the user's network, and says nothing of vehicles."""
    page = (folder / "results" / "scanner" / "report.html").read_text()
    assert "report.html" in said["report"]
    assert 'id="viewer-data"' in page
    assert "scanner:Fusion" in page
    text = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    for word in ("sensor", "camera", "radar", "vehicle", "scene", "logit"):
        assert not re.findall(rf"[^.]*\b{word}s?\b[^.]*", text, flags=re.IGNORECASE)
    assert "What if a modality is missing?" in text
    assert "how strongly this network's output hangs on a modality's features" in text


def test_the_pages_remove_scores_a_data_set_of_ones_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """The page's second file, with the command that the page gives for it."""
    (folder / "lesions.py").write_text(blocks("python")[1])
    monkeypatch.chdir(folder)
    (line,) = re.findall(r"`(lmd score --config scanner.yaml [^`]*)`", PAGE)
    methods = " --method lmd --method leave-one-out --resamples 20 --set seed=2"
    output = " ".join(called(line + methods).split())
    said = re.search(r"16 regions \(16 objects.*Interventions: (\d+) of 16 are detected", output)
    assert said, output
    rows = (folder / "results" / "scanner" / "score" / "interventions.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * int(said[1])
    assert int(said[1]) > 0
