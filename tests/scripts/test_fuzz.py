"""The scripts that damage what comes from outside, for a moment each (CI: a minute each)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


NAMES = sorted(path.stem for path in (ROOT / "scripts" / "fuzz").glob("*.py"))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "trials"])
def test_whatever_is_damaged_ends_in_a_result_or_a_message(name: str, tmp_path: Path) -> None:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, f"scripts/fuzz/{name}.py", "--seed", "0", "--seconds", "1.5"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 1, done.stdout  # trials
    assert ", 0 failed" in done.stdout
