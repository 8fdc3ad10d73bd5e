"""A newcomer's file and YAML, from CONTRACT.md word for word, as real processes."""

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

import lmd_cli

PAGE = (Path(lmd_cli.__file__).parent / "CONTRACT.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's two files, and nothing else."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "scanner.py").write_text(blocks("python")[0])
    (folder / "scanner.yaml").write_text(blocks("yaml")[0])
    return folder


def run(folder: Path, command: str) -> str:
    program, *arguments = command.split()
    assert program == "lmd"
    paths = [str(Path(lmd_cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "lmd_cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_is_at_most_forty_lines():
    assert len(blocks("python")[0].splitlines()) <= 40


def test_the_examples_commands_give_a_table_a_picture_and_a_page(folder: Path):
    commands = blocks("bash")[0].strip().splitlines()
    said = {command.split()[1]: run(folder, command) for command in commands}
    assert "every one has a rule" in said["inspect"]
    assert "max_pool2d" in said["inspect"]
    assert "FAIL" not in said["check"]
    results = folder / "results" / "scanner"
    assert "PCC mri_p/mri" in (results / "table.csv").read_text()
    record = json.loads((results / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["conservation_residual"] < 1e-5
    assert record["replay_deviation"] < 1e-4
    assert (results / "table2" / "table2.md").read_text().count("Identity") >= 4
    own = results / "decompose" / "00"
    picture = np.asarray(Image.open(own / "decomposition_signed.png").convert("RGB"))
    assert picture.std() > 5  # something is drawn
    with np.load(own / "parts.npz") as arrays:
        assert arrays["total"].shape == (1, 32, 32)
        parts = arrays["mri"] + arrays["pet"] + arrays["bias"]
        assert np.allclose(parts, arrays["total"], atol=1e-5)
        assert arrays["ground_truth"].shape == (32, 32)
    page = (results / "report.html").read_text()
    assert 'id="viewer-data"' in page
    assert "scanner:Fusion" in page
    assert "annotated vehicles" not in page
