"""``lmd score`` and ``lmd sanity``, killed: nothing that was finished is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmd_cli.results import finished
from tests.support.calling import Lmd

SCORE = ("--method", "lmd", "--method", "integrated-gradients", "--limit", "3", "--resamples", "20")
COMMANDS = {
    "score": (SCORE, ("score.csv", "vehicles.csv", "score.png", "run.json")),
    "sanity": (("--limit", "2"), ("sanity.csv", "sanity.png", "run.json")),
}


def lines(folder: Path) -> list[bytes]:
    """Without one that is being written, or was when the process died."""
    path = folder / finished.NAME
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def kill_at_first_line(config: Path, name: str, folder: Path) -> None:
    """Starts the command as a process of its own and kills it once a sample is finished."""
    command = [sys.executable, "-m", "lmd_cli", name, "-c", str(config), *COMMANDS[name][0]]
    process = subprocess.Popen([*command, "--output", str(folder)], stdout=subprocess.DEVNULL)
    for _ in range(12000):
        if lines(folder) or process.poll() is not None:
            break
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_goes_on_to_the_same_bytes(
    lmd: Lmd, tiny_config: Path, tmp_path: Path, name: str
) -> None:
    arguments, files = COMMANDS[name]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert lmd(name, "-c", tiny_config, *arguments, "--output", whole).exit_code == 0
    kill_at_first_line(tiny_config, name, cut)
    kept = lines(cut)
    assert 0 < len(kept) < len(lines(whole))
    assert json.loads((cut / "run.json").read_text())["status"] == "unfinished"
    with (cut / finished.NAME).open("ab") as file:
        file.write(b'{"sample": "torn')
    again = lmd(name, "-c", tiny_config, *arguments, "--output", cut)
    assert again.exit_code == 0, again.output
    assert lines(cut)[: len(kept)] == kept  # not worked out again: its times are the first's
    for file_name in files:
        assert (cut / file_name).read_bytes() == (whole / file_name).read_bytes(), file_name


@pytest.mark.parametrize("name", COMMANDS)
def test_another_runs_folder_is_refused(
    lmd: Lmd, tiny_config: Path, tmp_path: Path, name: str
) -> None:
    def run(*more: object) -> tuple[int, str]:
        limited = ("--limit", 1, "--output", tmp_path / "out")
        method = ("--method", "lmd") if name == "score" else ()
        result = lmd(name, "-c", tiny_config, *method, *limited, *more)
        return result.exit_code, " ".join(result.output.split())

    assert run()[0] == 0
    code, said = run("--set", "seed=5")
    assert code == 2
    assert "holds the results of another run: config.seed: 0 there, 5 here" in said
    assert "--overwrite to replace them" in said
    assert run("--set", "seed=5", "--overwrite")[0] == 0
    (tmp_path / "out" / "run.json").unlink()
    code, said = run("--set", "seed=5")
    assert code == 2
    assert "without a run.json" in said
