"""Real processes: killed, and going on. Ctrl-C is in ``cli/test_process.py``."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

FILES = ("pairs.csv", "samples.csv", "metrics.csv", "table.csv", "run.json")


def start(config: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lmd_cli", "evaluate", "--config", str(config)]
    return subprocess.Popen(
        [*command, "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_rows(process: subprocess.Popen[str], output: Path, rows: int) -> None:
    """Until ``samples.csv`` has a header and that many lines."""
    path = output / "samples.csv"
    for _ in range(1200):
        if path.exists() and path.read_bytes().count(b"\n") > rows:
            return
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}: {process.communicate()}")
        time.sleep(0.05)
    process.kill()
    pytest.fail("no rows within a minute")


@pytest.fixture(scope="module")
def uninterrupted(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = start(tiny_config, folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("rows", [0, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(
    tiny_config: Path, uninterrupted: dict[str, bytes], tmp_path: Path, rows: int
) -> None:
    process = start(tiny_config, tmp_path)
    wait_for_rows(process, tmp_path, rows)
    process.kill()
    process.wait()
    again = start(tiny_config, tmp_path)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == uninterrupted
