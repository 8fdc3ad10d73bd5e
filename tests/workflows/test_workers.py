"""The evaluation with worker processes: the same bytes, the same errors, no orphans."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmd_cli.assembly.build import build_dataset
from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.errors import DataError
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.evaluation.walk import Skipped, walk
from lmd_cli.workflows.evaluate import evaluate

FILES = ("pairs.csv", "samples.csv", "metrics.csv", "table.csv", "notes.txt", "run.json")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def with_workers(config: Path, workers: int, *settings: str) -> RunConfig:
    return load_config(str(config), [f"workers={workers}", *settings])


@pytest.fixture(scope="module")
def alone(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("alone")
    evaluate(with_workers(tiny_config, 0), folder)
    return bytes_of(folder)


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_bytes(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path, workers: int
) -> None:
    evaluate(with_workers(tiny_config, workers), tmp_path, limit=2)
    evaluate(with_workers(tiny_config, 4 - workers), tmp_path)  # goes on with another number
    assert bytes_of(tmp_path) == alone


@pytest.mark.parametrize("numbers", [(6, 1, 2), (7, 2, 3), (12, 4, 2), (13, 1, 12)])
def test_the_order_announced_is_the_walks(numbers: tuple[int, int, int]) -> None:
    schedule = Schedule(*numbers)
    for first, last in ((0, schedule.samples), (1, schedule.samples - 1), (4, 5), (3, 3)):
        asked: list[int] = []

        def encode(index: int, keep: bool, asked: list[int] = asked) -> Skipped:
            asked.append(index)
            return Skipped(index, "", "")

        list(walk(schedule, encode, first, last))
        assert schedule.order(first, last) == asked


@pytest.fixture
def damaged(tiny_config: Path, tiny_root: Path, tmp_path: Path) -> tuple[str, str, Path]:
    """The setting for a root with a truncated image, the sample's token, and the image."""
    root = Path(shutil.copytree(tiny_root, tmp_path / "root"))
    setting = f"data.dataroot={root}"
    record = build_dataset(load_config(str(tiny_config), [setting]))._records[3]
    image = root / record.cameras[4].filename
    image.write_bytes(image.read_bytes()[:500])
    return setting, record.token, image


def test_an_unreadable_sample_is_the_same_error(
    tiny_config: Path, damaged: tuple[str, str, Path], tmp_path: Path
) -> None:
    setting, token, image = damaged
    actual = []
    for workers in (0, 2):
        with pytest.raises(DataError) as caught:
            evaluate(with_workers(tiny_config, workers, setting), tmp_path / str(workers))
        error = caught.value
        actual.append((str(error), error.path, error.token, error.exit_code))
        rows = (tmp_path / str(workers) / "samples.csv").read_bytes()
        assert rows.count(b"\n") == 2  # sample 0 was finished; sample 1 needs sample 3
    assert actual[0] == actual[1]
    assert (actual[0][1], actual[0][2]) == (str(image), token)
    assert actual[0][0].startswith(f"{image}: truncated")


def test_skipping_works_through_workers(
    tiny_config: Path, damaged: tuple[str, str, Path], tmp_path: Path
) -> None:
    setting, token, _ = damaged
    for workers in (0, 2):
        config = with_workers(tiny_config, workers, setting)
        summary = evaluate(config, tmp_path / str(workers), on_error="skip")
        assert summary.record["skipped"] == [token]
    assert bytes_of(tmp_path / "0") == bytes_of(tmp_path / "2")


# -- real processes -------------------------------------------------------------------------


def start(config: Path, output: Path) -> subprocess.Popen[str]:
    """The command, leader of a process group of its own."""
    command = [sys.executable, "-m", "lmd_cli", "evaluate", "--workers", "2", "-c", str(config)]
    return subprocess.Popen(
        [*command, "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_a_row(process: subprocess.Popen[str], output: Path) -> list[int]:
    """Until a sample is finished; the running workers."""
    path = output / "samples.csv"
    for _ in range(2400):
        if path.exists() and path.read_bytes().count(b"\n") > 1:
            actual = group(process.pid)
            assert len(actual) == 3
            return [member for member in actual if member != process.pid]
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}: {process.communicate()}")
        time.sleep(0.02)
    process.kill()
    pytest.fail("no rows within a minute")


def group(leader: int) -> list[int]:
    """Living processes of a process group."""
    actual = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == leader and fields[0] != "Z":
                actual.append(int(entry.name))
    return actual


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("end", ["worker killed", "ctrl-c", "main process killed"])
def test_however_it_ends_rows_are_kept_and_no_process_stays(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path, end: str
) -> None:
    process = start(tiny_config, tmp_path)
    workers = wait_for_a_row(process, tmp_path)
    kept = (tmp_path / "samples.csv").read_bytes()
    if end == "worker killed":
        os.kill(workers[0], signal.SIGKILL)
    elif end == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    else:
        process.kill()
    _, errors = process.communicate(timeout=120)
    expected = {"worker killed": 1, "ctrl-c": 130, "main process killed": -signal.SIGKILL}
    assert process.returncode == expected[end], errors
    if end != "main process killed":  # then a worker may complain
        assert "Traceback" not in errors
    if end == "worker killed":
        assert "a process that reads data died" in errors
        assert "the same command goes on from there; fewer --workers need less memory" in errors
    for _ in range(300):  # workers look for their main process every few seconds
        if not group(process.pid):
            break
        time.sleep(0.1)
    assert group(process.pid) == []
    assert (tmp_path / "samples.csv").read_bytes().startswith(kept)
    evaluate(with_workers(tiny_config, 0), tmp_path)
    assert bytes_of(tmp_path) == alone
