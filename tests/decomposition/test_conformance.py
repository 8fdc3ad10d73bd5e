"""A fixed tenth of torch's own operator samples; :mod:`conformance` runs all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: So many operators may be left out.
MOST_SKIPS = 5


def test_total_conservation_program_and_linearity() -> None:
    pytest.importorskip("expecttest", reason="torch's samples need it")
    command = [sys.executable, str(HERE / "conformance.py"), "--tenth"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    counted = re.search(r"(\d+) operators; .*?(\d+) passed", run.stdout)
    assert counted is not None
    assert int(counted[1]) > 200
    assert int(counted[2]) > 1000


def test_little_is_left_out() -> None:
    lines = (HERE / "conformance_skips.txt").read_text().splitlines()
    skips = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    assert len(skips) <= MOST_SKIPS
    assert all(len(skip) == 2 for skip in skips)
