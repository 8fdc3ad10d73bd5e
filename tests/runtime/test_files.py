"""Files and folders of our own, in folders that somebody else may have filled."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from lmd_cli.errors import ForeignFileError, out_of_memory
from lmd_cli.results.rows import Stretch, merge
from lmd_cli.results.run_folder import FILES, RunFolder
from lmd_cli.runtime import drafts, locks
from lmd_cli.runtime.drafts import LOCK, making
from lmd_cli.runtime.files import (
    append_synced,
    csv_lines,
    file_name,
    format_value,
    make_folder,
    own,
    read_own,
    read_text,
    remove_own,
    replacing,
)
from lmd_cli.runtime.printable import one_line, printable

KINDS: dict[str, Callable[[Path], object]] = {
    "a symbolic link": lambda path: path.symlink_to(path.parent / "outside.txt"),
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["rb", "ab", "ab+", "rb+", "xb"])
def test_only_plain_files_are_opened(tmp_path: Path, kind: str, mode: str) -> None:
    (tmp_path / "outside.txt").write_bytes(b"kept")
    KINDS[kind](tmp_path / "file")
    with (
        pytest.raises((ForeignFileError, FileExistsError)) as caught,
        open(tmp_path / "file", mode, opener=own),
    ):
        pass
    if mode != "xb" or isinstance(caught.value, ForeignFileError):
        assert f"file is {kind}; expected a plain file" in str(caught.value)
    assert (tmp_path / "outside.txt").read_bytes() == b"kept"


def test_a_file_takes_a_links_place_and_not_its_targets(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"kept")
    path = tmp_path / "run.json"
    path.symlink_to(outside)
    (tmp_path / ".run.json.part").symlink_to(outside)
    with replacing(path) as file:
        file.write(b"new")
    assert read_own(path) == b"new"
    assert outside.read_bytes() == b"kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outside.txt", "run.json"]


def test_drafts_of_killed_processes_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    path = tmp_path / "index"
    (tmp_path / ".index.123.part").write_bytes(b"left")
    with open(tmp_path / ".index.124.part", "wb") as alive:
        locks.lock_file(alive)
        with replacing(path, shared=True) as file:
            file.write(b"new")
        assert sorted(p.name for p in tmp_path.iterdir()) == [".index.124.part", "index"]


def test_folders_and_removals(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(ForeignFileError, match=r"link is a symbolic link; expected a folder"):
        make_folder(tmp_path / "link")
    remove_own(tmp_path / "link")
    remove_own(tmp_path / "link")
    assert (outside / "deep").is_dir()
    with pytest.raises(ForeignFileError, match="outside is a folder"):
        remove_own(outside)
    (tmp_path / "file").touch()
    with pytest.raises(ForeignFileError, match="file is a file; expected a folder"):
        make_folder(tmp_path / "file")


@pytest.mark.parametrize("name", [*FILES, ".lock", ".ranks"])
def test_a_run_writes_and_clears_nothing_through_links(tmp_path: Path, name: str) -> None:
    outside, run = tmp_path / "outside.txt", RunFolder(tmp_path / "run")
    outside.write_bytes(b"kept\n")
    (run.path / name).symlink_to(outside)
    with contextlib.suppress(ForeignFileError), run.locked():
        run.write_record({})
        merge(run.path)
        append_synced(run.file(name), b"more")
    assert outside.read_bytes() == b"kept\n"
    run.clear()
    assert outside.read_bytes() == b"kept\n"


def test_a_folder_of_rows_that_is_a_link(tmp_path: Path) -> None:
    outside, run = tmp_path / "outside", RunFolder(tmp_path / "run")
    outside.mkdir()
    (outside / "000003.samples.csv").write_bytes(b"kept\n")
    (run.path / "rows").symlink_to(outside)
    for action in (run.has_results, lambda: merge(run.path), run.clear, Stretch(run.path, 3).trim):
        with pytest.raises(ForeignFileError, match="rows is a symbolic link"):
            action()
    assert (outside / "000003.samples.csv").read_bytes() == b"kept\n"


# -- texts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "name"),
    [
        *[("3e8750f331d7499e9b5123e9eb70f2e2", None), ("patient-3", None), ("é", None)],
        *[("../../etc/passwd", "_.._etc_passwd-3754d6cb"), ("/abs", "_abs-e802dcc0")],
        *[("..", "_-5ec1f7e7"), ("", "_-e3b0c442"), ("a\nb", "a_b-7e18f737")],
    ],
)
def test_a_token_is_a_name_and_never_a_path(token: str, name: str | None) -> None:
    assert file_name(token) == (name or token)
    assert len(file_name(token * 500)) < 120


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@a", "\t=1", "'=1", "''-x", "- rain", "--5"])
def test_formulas_are_made_harmless_and_read_back(text: str) -> None:
    assert format_value(text) == f"'{text}"
    assert read_text(format_value(text)) == text


@pytest.mark.parametrize("text", ["a", "-5", "+1.5e-3", "-0.05 ± 0.02", "-0.05 ± 0.02*", "'-5", ""])
def test_numbers_and_words_stay(text: str) -> None:
    assert format_value(text) == text
    assert read_text(text) == text


def test_numbers_are_no_texts() -> None:
    assert csv_lines([(-1.5, -3, "=A1", float("-inf"))]) == b"-1.5,-3,'=A1,-inf\n"


def test_what_cannot_be_seen_is_written_out() -> None:
    assert printable("a\x1b[2J\r\u202eb\u2028\n\tc") == "a\\x1b[2J\\r\\u202eb\\u2028\n\tc"
    assert printable("größer ± 0.1") == "größer ± 0.1"
    assert one_line("token")
    assert not any(map(one_line, ("", "a\n", "a\rb", "a\x85b", "a\u2028b")))


ASCII = (
    "from lmd_cli.runtime.printable import use_plain_text as u; u(); print('0.1 ± 0.2 é \\ud800')"
)


def test_a_terminal_that_knows_ascii_alone() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", ASCII], capture_output=True, env=environment)
    assert done.stdout == b"0.1 +- 0.2 \\xe9 \\ud800\n", done.stderr


# -- systems ------------------------------------------------------------------------------


def test_locks_without_fcntl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has another module for them; one lock then holds off every other."""
    held: set[str] = set()

    def locking(descriptor: int, mode: int, count: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path in held:
            if path.endswith("b"):
                held.clear()  # as if the other process had ended meanwhile
            raise OSError(13, "Permission denied")
        held.add(path)

    windows = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    try:
        importlib.reload(locks)
        with open(tmp_path / "a", "wb") as file:
            locks.lock_file(file)
            with pytest.raises(BlockingIOError):
                locks.lock_file(file)
            with pytest.raises(OSError, match="no locks that several processes share"):
                locks.lock_file(file, shared=True)
        with open(tmp_path / "b", "wb") as file:
            locks.lock_file(file, wait=True)
            locks.lock_file(file, wait=True)
    finally:
        monkeypatch.undo()
        importlib.reload(locks)


def test_nothing_else_needs_a_module_of_one_system() -> None:
    package = Path(locks.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        if path.name != "locks.py":
            assert "import fcntl" not in text, path
        assert "\nimport resource" not in text, path


def test_half_made_folders_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead, new, other = (tmp_path / f".{name}.making" for name in ("root-1", "root-2", "rooted-1"))
    for folder in (dead, new, other):
        folder.mkdir()
    (dead / LOCK).touch()
    (other / LOCK).touch()
    with making(tmp_path, "root") as first, making(tmp_path, "root") as second:
        assert not dead.exists()
        assert all(folder.is_dir() for folder in (first, second, new, other))
    assert not first.exists()
    os.utime(new, (0, 0))  # without a lock for years
    with making(tmp_path, "root"):
        assert not new.exists()


def test_a_link_in_a_half_made_folders_place_is_let_be(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / LOCK).touch()
    (tmp_path / ".root-1.making").symlink_to(outside)
    drafts._clear(tmp_path, "root")
    assert (outside / LOCK).exists()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *[(MemoryError(), True), (OSError(12, "Cannot allocate memory"), True)],
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        *[(OSError(2, "No such file"), False), (ValueError("DefaultCPUAllocator"), False)],
    ],
)
def test_out_of_memory(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) == expected
