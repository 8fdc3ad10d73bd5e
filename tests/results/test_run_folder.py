"""The run's folder: what is torn is cut off, what is whole stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmd_cli.errors import ResultsError, RunError
from lmd_cli.results.record import differences, require_own
from lmd_cli.results.run_folder import RunFolder
from lmd_cli.runtime.files import csv_lines, format_value, write_atomically


def pair(token: str, m: int) -> tuple[object, ...]:
    return (token, f"p{m}", m, "identity-ratio", "radar", "radar", 0.1 * m, 1.0 / 3.0)


def sample(position: int, pairs: int) -> tuple[object, ...]:
    return (position, f"s{position}", "ok", pairs, "", 1, 2, 1e-7, None)


def add(run: RunFolder, position: int) -> None:
    run.rows().append([pair(f"s{position}", m) for m in (1, 2)], sample(position, 2))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.rows().trim()
    for position in range(3):
        add(run, position)
    return run


def contents(run: RunFolder) -> tuple[bytes, bytes]:
    return run.file("pairs.csv").read_bytes(), run.file("samples.csv").read_bytes()


def test_floats_read_back_exactly_and_undefined_is_empty() -> None:
    assert float(format_value(1.0 / 3.0)) == 1.0 / 3.0
    assert format_value(float("nan")) == ""
    assert format_value(None) == ""
    assert csv_lines([("a,b", 1, 0.5)]) == b'"a,b",1,0.5\n'


def test_whole_results_stay(folder: RunFolder) -> None:
    before = contents(folder)
    assert folder.rows().trim() == 3
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["samples.csv", "pairs.csv"])
def test_a_file_cut_at_any_byte_ends_with_the_same_bytes(folder: RunFolder, name: str) -> None:
    """What the shorter file lacks is made again, whichever of the two it is."""
    before = contents(folder)
    whole = folder.file(name).read_bytes()
    for end in range(len(whole)):
        folder.file(name).write_bytes(whole[:end])
        for position in range(folder.rows().trim(), 3):
            add(folder, position)
        assert contents(folder) == before, end


@pytest.mark.parametrize("torn", [b"3,s3\n" + b"\0" * 40, b"3,s\r3"])
def test_a_torn_line_with_more_behind_it_is_cut_off(folder: RunFolder, torn: bytes) -> None:
    before = contents(folder)
    for name in ("samples.csv", "pairs.csv"):
        with open(folder.file(name), "ab") as file:
            file.write(torn + b"\nmore\n")
    assert folder.rows().trim() == 3
    assert contents(folder) == before


def test_a_lost_line_in_the_middle_is_noticed(folder: RunFolder) -> None:
    """The pairs behind it are other samples' than the lines say, so they are made again."""
    path = folder.file("pairs.csv")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert folder.rows().trim() == 1
    assert path.read_bytes() == b"".join(lines[:3])


def test_other_columns_are_refused_and_kept(folder: RunFolder) -> None:
    path = folder.file("pairs.csv")
    path.write_bytes(path.read_bytes().replace(b"pcc,mse", b"r,mse"))
    before = contents(folder)
    with pytest.raises(ResultsError, match=r"pairs.csv has other columns.*--overwrite"):
        folder.rows().trim()
    assert contents(folder) == before


def test_a_second_run_is_locked_out_and_a_dead_one_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from lmd_cli.results.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n"
        "    print('in', flush=True)\n"
        "    time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    with pytest.raises(ResultsError, match="another run is writing"), RunFolder(tmp_path).locked():
        pass
    process.kill()
    process.wait()
    with RunFolder(tmp_path).locked():
        pass


def test_a_full_disk_is_said_so(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="the disk is full"):
        write_atomically(folder.file("table.csv"), b"x")
    with pytest.raises(RunError, match="the disk is full"):
        add(folder, 3)
    monkeypatch.undo()
    assert folder.rows().trim() == 3
    assert contents(folder) == before
    assert RunError.exit_code == 1


def test_differences_name_the_fields() -> None:
    old = {"config": {"data": {"split": "val", "nsweeps": 5}}, "threads": 2}
    new = {"config": {"data": {"split": "mini_val", "nsweeps": 5}}, "threads": 1}
    assert differences(old, new) == [
        "config.data.split: 'val' there, 'mini_val' here",
        "threads: 2 there, 1 here",
    ]
    with pytest.raises(ResultsError, match=r"another run:\n  config.data.split"):
        require_own(old, new, Path("results"), None)
