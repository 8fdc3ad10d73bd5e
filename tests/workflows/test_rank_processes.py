"""Several real processes make one run: the same bytes as one, whoever is killed when."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from lmd_cli.assembly.build import build_dataset
from lmd_cli.config.loading import load_config
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.results.run_folder import FILES
from lmd_cli.runtime import meeting
from lmd_cli.workflows import evaluate as runner
from lmd_cli.workflows import ranks as tally
from lmd_cli.workflows.evaluate import evaluate
from tests.support.forked_processes import (
    ended,
    finished,
    free_port,
    is_over,
    kill,
    rank_of,
    ranks,
    slurm,
    sometimes,
    start,
    wait_until,
)


@pytest.fixture(scope="module")
def alone(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    folder = tmp_path_factory.mktemp("alone")
    evaluate(load_config(str(tiny_config)), folder)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """All results of a finished run, and no other file."""
    names = {path.name for path in folder.iterdir()} - {".lock", ".ranks"}
    assert names == set(FILES)
    timed = {"timings.csv", "invocations.jsonl"}
    return {name: (folder / name).read_bytes() for name in names - timed}


def arguments(config: Path, output: Path, *more: str) -> list[str]:
    return ["evaluate", "--config", str(config), "--output", str(output), *more]


class Gate:
    """A root in which one image is held back: who needs it waits, until the gate is opened.

    Of three ranks that share six samples with one partner each, only rank 1 needs it, before its
    first row.

    Attributes:
        config: a YAML for this root.
        alone: what one process writes.
    """

    def __init__(self, config: Path, root: Path, folder: Path):
        settings = yaml.safe_load(config.read_text())
        settings["data"]["dataroot"] = str(shutil.copytree(root, folder / "root"))
        settings |= {"perturbation": {"count": 1}, "variants": ["identity-ratio"]}
        self.config = folder / "gate.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        run = load_config(str(self.config))
        evaluate(run, folder / "alone")
        self.alone = contents(folder / "alone")
        tokens = build_dataset(run).tokens
        token = tokens[Schedule.resolve(len(tokens), "auto", 1).sample(3)]
        tables = json.loads((folder / "root" / "v1.0-mini" / "sample_data.json").read_text())
        image = next(
            t for t in tables if t["sample_token"] == token and "CAM_BACK/" in t["filename"]
        )
        self._held = Path(f"{folder / 'root' / image['filename']}.held")
        self._held.touch()

    def open(self) -> None:
        """Nobody waits any more."""
        self._held.unlink()


#: In every process that a test starts, from the start.
HOLD = """
import os, time
from PIL import Image
real = Image.open
def patient(path, *args, **kwargs):
    while os.path.exists(f"{path}.held"):
        time.sleep(0.01)
    return real(path, *args, **kwargs)
Image.open = patient
"""


@pytest.fixture
def gate(
    tiny_config: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Gate:
    made = Gate(tiny_config, tiny_root, tmp_path)
    (tmp_path / "sitecustomize.py").write_text(HOLD)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setattr(Image, "open", Image.open)  # forks are patched here, until the test's end
    exec(HOLD, {})
    return made


def torchrun(size: int, config: Path, output: Path) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, f"--nproc-per-node={size}", "-m", "lmd_cli", *arguments(config, output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_torchrun(tiny_config: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    """PyTorch elastic sets one thread and its own store; only rank 0 prints."""
    process = torchrun(2, tiny_config, tmp_path / "out")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert contents(tmp_path / "out") == alone
    assert output.count("Random weights") == 1
    assert errors.count("evaluate: 6 to do") == 1
    assert "evaluate: 6/6" in errors


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_torchrun_with_a_rank_that_is_killed(gate: Gate, tmp_path: Path) -> None:
    """It stops the others, unless rank 0 notices first that rows are missing; two go on."""
    out = tmp_path / "out"
    process = torchrun(3, gate.config, out)
    wait_until(lambda: finished(out) == 4, [process.pid])
    os.kill(rank_of(process.pid, 1), signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert output == ""
    stopped = f"interrupted: finished rows are kept in {out}" in errors
    assert stopped or "error: rows are missing from position 2 of 6 on" in errors
    assert finished(out) == 4
    gate.open()
    assert ended(ranks(arguments(gate.config, out), 2, tmp_path)) == [0, 0]
    assert contents(out) == gate.alone


def test_srun_with_a_limit_and_then_all_of_it(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert ended(ranks(arguments(tiny_config, out, "--limit", "3"), 2, tmp_path)) == [0, 0]
    assert len((out / "samples.csv").read_text().splitlines()) == 1 + 3
    assert '"status": "3 of 6 samples"' in (out / "run.json").read_text()
    assert ended(ranks(arguments(tiny_config, out), 3, tmp_path)) == [0, 0, 0]
    assert contents(out) == alone
    assert (tmp_path / "rank-1.txt").read_text() == ""
    # A finished run is not computed again, and its tables are shown.
    assert ended(ranks(arguments(tiny_config, out), 2, tmp_path)) == [0, 0]
    assert contents(out) == alone
    assert "Random weights" in (tmp_path / "rank-0.txt").read_text()


def test_one_dead_rank_loses_no_rows_of_the_others(gate: Gate, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pids = ranks(arguments(gate.config, out), 3, tmp_path)
    wait_until(lambda: finished(out) == 4, pids)
    os.kill(pids[1], signal.SIGKILL)
    assert ended(pids) == [1, -signal.SIGKILL, 0]
    message = (tmp_path / "rank-0.txt").read_text().splitlines()[-1]
    assert message == (
        "error: rows are missing from position 2 of 6 on: another rank ended early; see its log. "
        "All finished rows are kept; the same command goes on from there, with any number of "
        "processes"
    )
    last = (out / "rows" / "000004.pairs.csv").read_bytes().partition(b"\n")[2]
    gate.open()
    assert ended(ranks(arguments(gate.config, out), 2, tmp_path)) == [0, 0]
    assert contents(out) == gate.alone
    assert (out / "pairs.csv").read_bytes().endswith(last)


def test_a_dead_rank_0_makes_nobody_hang(gate: Gate, tmp_path: Path) -> None:
    """The others finish; while they are at work, the folder is not free."""
    out = tmp_path / "out"
    pids = ranks(arguments(gate.config, out), 3, tmp_path)
    wait_until(lambda: finished(out) == 4, pids)
    os.kill(pids[0], signal.SIGKILL)
    assert ended([pids[0], pids[2]]) == [-signal.SIGKILL, 0]
    gate.open()
    assert ended([pids[1]]) == [0]
    assert finished(out) == 6
    assert ended(ranks(arguments(gate.config, out), 1, tmp_path)) == [0]
    assert contents(out) == gate.alone


def test_ranks_at_work_keep_another_run_out(gate: Gate, tmp_path: Path) -> None:
    """Also when their rank 0 is dead; and when they are, the folder is free at once."""
    out = tmp_path / "out"
    pids = ranks(arguments(gate.config, out), 3, tmp_path)
    wait_until(lambda: finished(out) == 4, pids)
    assert ended([start(arguments(gate.config, out), tmp_path / "busy.txt")]) == [2]
    os.kill(pids[0], signal.SIGKILL)
    ended([pids[0]])
    assert ended([start(arguments(gate.config, out), tmp_path / "busy.txt")]) == [2]
    assert "error: another run is writing to" in (tmp_path / "busy.txt").read_text()
    kill(pids[1:])
    ended(pids[1:])
    gate.open()
    assert ended([start(arguments(gate.config, out), tmp_path / "free.txt")]) == [0]


def test_a_frozen_rank_is_named_and_not_waited_for(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may wake up and write, so its rows are left alone until it has ended."""
    for module in (meeting, tally):
        monkeypatch.setattr(module, "LOST_AFTER", 1.0)
    monkeypatch.setattr(meeting, "HEARTBEAT", 0.2)
    out = tmp_path / "out"
    pids = ranks(arguments(gate.config, out), 3, tmp_path)
    wait_until(lambda: finished(out) == 4, pids)
    os.kill(pids[1], signal.SIGSTOP)
    try:
        assert ended([pids[0], pids[2]], 30.0) == [1, 0]
    finally:
        kill(pids)
        ended([pids[1]])
    said = (tmp_path / "rank-0.txt").read_text()
    assert "error: rank 1 has sent no heartbeat for 1 s: it hangs" in said
    gate.open()
    assert ended(ranks(arguments(gate.config, out), 1, tmp_path)) == [0]
    assert contents(out) == gate.alone


def test_a_frozen_rank_0_is_named(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the store, which does not answer then."""
    monkeypatch.setattr(meeting, "ANSWER_TIMEOUT", 1.0)
    monkeypatch.setattr(runner, "prepare", lambda *args, **kwargs: time.sleep(60))
    pids = ranks(arguments(tiny_config, tmp_path / "out"), 2, tmp_path)
    time.sleep(1.0)
    os.kill(pids[0], signal.SIGSTOP)
    try:
        assert ended([pids[1]], 30.0) == [1]
    finally:
        kill(pids)
        ended([pids[0]])
    said = (tmp_path / "rank-1.txt").read_text()
    assert re.search(r"error in rank 1: rank 0 at 127.0.0.1:\d+ has not answered for 1 s", said)


def test_what_stops_rank_0_stops_the_others(tiny_config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "pairs.csv").write_text("mine\n")
    assert ended(ranks(arguments(tiny_config, out), 2, tmp_path)) == [2, 1]
    assert "holds results without a run.json" in (tmp_path / "rank-0.txt").read_text()
    message = (tmp_path / "rank-1.txt").read_text()
    assert message.startswith("error in rank 1: rank 0 ended before it had divided the work")
    assert message.count("\n") == 1


def test_a_rank_that_would_compute_something_else_is_refused(
    tiny_config: Path, tmp_path: Path
) -> None:
    out, port = tmp_path / "out", free_port()
    pids = [
        start(
            arguments(tiny_config, out, "--set", f"data.nsweeps={2 - rank}"),
            tmp_path / f"rank-{rank}.txt",
            slurm(rank, 2, port),
        )
        for rank in range(2)
    ]
    assert ended(pids) == [1, 2]
    message = (tmp_path / "rank-1.txt").read_text()
    assert message.startswith("error in rank 1: rank 1 is not like rank 0 (there)")
    assert "config.data.nsweeps: 2 there, 1 here" in message


def test_sigterm_is_answered_like_ctrl_c(gate: Gate, tmp_path: Path) -> None:
    """Launchers and schedulers send it some seconds before they kill."""
    out = tmp_path / "out"
    pids = ranks(arguments(gate.config, out), 3, tmp_path)
    wait_until(lambda: finished(out) == 4 and is_over(pids[2]), pids)  # rank 2 has done its share
    kill(pids, signal.SIGTERM)
    assert ended(pids) == [130, 130, 0]
    assert (tmp_path / "rank-1.txt").read_text() == ""
    last = (tmp_path / "rank-0.txt").read_text().splitlines()[-1]
    assert last.startswith(f"interrupted: finished rows are kept in {out}; the same command goes")


def test_two_processes_cannot_be_the_same_rank(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    """Two launches with one port: the second's rank 0 finds it taken, but its rank 1 gets in."""
    out, port = tmp_path / "out", free_port()
    logs = [tmp_path / f"rank-{n}.txt" for n in range(3)]
    pids = [
        start(arguments(tiny_config, out), log, slurm(min(n, 1), 2, port))
        for n, log in enumerate(logs)
    ]
    assert sorted(ended(pids)) == [0, 0, 1]
    assert contents(out) == alone
    messages = logs[1].read_text() + logs[2].read_text()
    assert messages == (
        f"error in rank 1: another process at 127.0.0.1:{port} is rank 1 already; give each "
        "launch a MASTER_PORT of its own\n"
    )


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_again_and_again(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    """One to three ranks; any of them, or all, are killed at any time until a run comes through."""
    out, chance, partial = tmp_path / "out", random.Random(seed), 0
    for _ in range(6):
        pids = ranks(arguments(tiny_config, out), chance.randint(1, 3), tmp_path)
        # At any time; or when there is one more row, and a moment later.
        sometimes(out, finished(out) + 1, chance.choice([1.5 * chance.random(), 30.0, 30.0]))
        kill(chance.sample(pids, chance.randint(1, len(pids))))
        time.sleep(chance.choice([0.0, 0.0, 0.1]))
        kill(pids)
        ended(pids)
        partial += 0 < finished(out) < 6
    assert partial, "no kill fell into the middle of a run"
    assert ended(ranks(arguments(tiny_config, out), chance.randint(1, 3), tmp_path))[0] == 0
    assert contents(out) == alone
