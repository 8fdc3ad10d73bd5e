"""Several real processes make one run: the same bytes as one, whoever is killed when."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import ended, free_port, kill, ranks, slurm, start

from lmd_cli.config_file import load_config
from lmd_cli.evaluation import evaluate
from lmd_cli.evaluation.results import FILES


@pytest.fixture(scope="module")
def alone(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    folder = tmp_path_factory.mktemp("alone")
    evaluate(load_config(str(tiny_config)), folder)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """All results of a finished run, and no other file."""
    found = {path.name for path in folder.iterdir()} - {".lock", ".ranks"}
    assert found == set(FILES)
    return {name: (folder / name).read_bytes() for name in found - {"timings.csv"}}


def arguments(config: Path, output: Path, *more: str) -> list[str]:
    return ["evaluate", "--config", str(config), "--output", str(output), *more]


def wait_until(reached: Callable[[], bool], pids: list[int], seconds: float = 60.0) -> None:
    """Waits for a condition; the processes are killed if it does not come."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            kill(pids)
            pytest.fail("it did not come to that")
        time.sleep(0.002)


def lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def torchrun(size: int, config: Path, output: Path) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, f"--nproc-per-node={size}", "-m", "lmd_cli", *arguments(config, output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rank_of(parent: int, rank: int) -> int:
    """The process that a launcher started as this rank."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes() for pid in children}
    return next(p for p, e in environments.items() if f"\0RANK={rank}\0".encode() in b"\0" + e)


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
def test_torchrun_with_a_rank_that_is_killed(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    """It stops the other ranks; two go on."""
    out = tmp_path / "out"
    process = torchrun(3, tiny_config, out)
    wait_until((out / "rows" / "000002.samples.csv").exists, [process.pid])
    os.kill(rank_of(process.pid, 1), signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert output == ""
    assert f"interrupted: finished rows are kept in {out}" in errors
    assert ended(ranks(arguments(tiny_config, out), 2, tmp_path)) == [0, 0]
    assert contents(out) == alone


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


def test_one_dead_rank_loses_no_rows_of_the_others(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pids = ranks(arguments(tiny_config, out), 3, tmp_path)
    wait_until((out / "rows" / "000002.samples.csv").exists, pids)
    os.kill(pids[1], signal.SIGSTOP)  # at its first sample, or at its second
    wait_until(lambda: lines(out / "samples.csv") == 1 + 2, pids)
    wait_until(lambda: lines(out / "rows" / "000004.samples.csv") == 1 + 2, pids)
    mine = lines(out / "rows" / "000002.samples.csv") - 1
    os.kill(pids[1], signal.SIGKILL)
    assert ended(pids) == [1, -signal.SIGKILL, 0]
    message = (tmp_path / "rank-0.txt").read_text().splitlines()[-1]
    assert message == (
        f"error: rows are missing from position {2 + mine} of 6 on: another rank ended early, and "
        "says why. All finished rows are kept; the same command goes on from there, with any "
        "number of processes"
    )
    assert lines(out / "rows" / "000004.samples.csv") == 1 + 2
    kept = (out / "rows" / "000004.pairs.csv").read_bytes()
    assert ended(ranks(arguments(tiny_config, out), 2, tmp_path)) == [0, 0]
    assert contents(out) == alone
    assert (out / "pairs.csv").read_bytes().endswith(kept.partition(b"\n")[2])


def test_a_dead_rank_0_makes_nobody_hang(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pids = ranks(arguments(tiny_config, out), 2, tmp_path)
    wait_until((out / "rows" / "000003.samples.csv").exists, pids)
    os.kill(pids[0], signal.SIGKILL)
    # While a rank of it lives, the folder is not free.
    busy = start(arguments(tiny_config, out), tmp_path / "busy.txt")
    assert ended([pids[0], busy])[0] == -signal.SIGKILL
    assert ended([pids[1]]) == [0]
    assert ended(ranks(arguments(tiny_config, out), 1, tmp_path)) == [0]
    assert contents(out) == alone


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


def test_sigterm_is_answered_like_ctrl_c(tiny_config: Path, tmp_path: Path) -> None:
    """Launchers and schedulers send it some seconds before they kill."""
    out = tmp_path / "out"
    pids = ranks(arguments(tiny_config, out), 2, tmp_path)
    wait_until((out / "rows" / "000003.samples.csv").exists, pids)
    kill(pids, signal.SIGTERM)
    codes = ended(pids)
    assert codes[0] == 130
    assert codes[1] in (0, 130)
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


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_again_and_again(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    """One to three ranks; any of them, or all, are killed at any time until a run comes through."""
    out, chance, partial = tmp_path / "out", random.Random(seed), 0
    for _ in range(6):
        pids = ranks(arguments(tiny_config, out), chance.randint(1, 3), tmp_path)
        sometimes(out, finished(out) + 1, chance.uniform(0.2, 3.0))
        kill(chance.sample(pids, chance.randint(1, len(pids))))
        time.sleep(chance.uniform(0.0, 0.2))
        kill(pids)
        ended(pids)
        partial += 0 < finished(out) < 6
    assert partial, "no kill fell into the middle of a run"
    assert ended(ranks(arguments(tiny_config, out), chance.randint(1, 3), tmp_path))[0] == 0
    assert contents(out) == alone


def finished(out: Path) -> int:
    """Samples whose rows are there, wherever."""
    files = [out / "samples.csv", *out.glob("rows/*.samples.csv")]
    return sum(max(lines(path) - 1, 0) for path in files)


def sometimes(out: Path, goal: int, seconds: float) -> None:
    """Waits for that many finished samples, but not for long."""
    deadline = time.monotonic() + seconds
    while finished(out) < goal and time.monotonic() < deadline:
        time.sleep(0.001)
