"""What the program needs of its surroundings: versions, modules, and what it does without."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lmd_cli import supported
from lmd_cli.__main__ import main
from lmd_cli.data import loading
from lmd_cli.runtime import allocator as memory
from lmd_cli.runtime import threads

PROJECT = Path(__file__).parents[1]

IMPORTED = """
import sys, time
import torch
before = time.process_time()
import lmd_cli
lmd_cli.decompose
print(time.process_time() - before)
print(*sys.modules)
"""
#: What a user of the engine alone need not have.
NEEDLESS = {"nuscenes", "matplotlib", "pandas", "pydantic", "captum", "cv2", "scipy", "typer"}


def test_the_engine_alone_imports_little_and_quickly() -> None:
    command = [sys.executable, "-c", IMPORTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.splitlines()
    assert not NEEDLESS & set(modules.split())
    assert float(seconds) < 1


@pytest.mark.parametrize(
    ("package", "installed", "message"),
    [
        ("torch", "2.1.2+cu121", "lmd needs torch 2.4 or later, and 2.1.2+cu121 is installed"),
        ("numpy", "1.23.5", "lmd needs numpy 1.24 or later, and 1.23.5 is installed"),
        ("typer", "0.15.3", "lmd needs typer 0.15.4 or later, and 0.15.3 is installed"),
    ],
)
def test_what_is_too_old_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: str,
    installed: str,
    message: str,
) -> None:
    true = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: installed if n == package else true(n))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert len(said.splitlines()) == 1
    with pytest.raises(ImportError, match=f"lmd needs {package}"):
        supported.require_supported()


def test_an_old_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    assert supported.unsupported().startswith("lmd needs Python 3.10 or later; this is ")


def test_what_is_installed_or_missing_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert supported.unsupported() == ""

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert supported.unsupported() == ""


def test_the_bounds_are_those_of_the_project() -> None:
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    bounds = dict(text.split(">=") for text in project["dependencies"])
    for name, (oldest, _) in supported.OLDEST.items():
        assert bounds[name] == ".".join(map(str, oldest))
    assert project["requires-python"].startswith(">=3.10,")
    assert not any("nuscenes" in name for name in bounds)


def test_other_systems_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS and Windows lack glibc's allocator, limits of open files, and cores of a process."""
    monkeypatch.setitem(sys.modules, "resource", None)
    assert loading._may_open(10**9)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert threads.available_cores() >= 1
    for system in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", system)
        assert not memory.keep_freed_memory()


def test_an_evaluation_gives_the_same_bytes_on_other_systems(
    tiny_config: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import tests.support.other_system\n")
    paths = os.pathsep.join(map(str, [tmp_path, PROJECT, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "lmd_cli", "evaluate", "-c", str(tiny_config), "--limit", "2"]
    for system in ("", "macos", "windows"):
        surroundings = {**os.environ, "PYTHONPATH": paths, "LMD_TEST_SYSTEM": system}
        there = subprocess.run([sys.executable, "-c", "import fcntl"], env=surroundings)
        assert bool(there.returncode) == (system == "windows")
        arguments = [*command, "--workers", "1", "--output", str(tmp_path / f"out{system}")]
        done = subprocess.run(arguments, capture_output=True, text=True, env=surroundings)
        assert done.returncode == 0, done.stderr
        pairs = (tmp_path / f"out{system}" / "pairs.csv").read_bytes()
        assert pairs == (tmp_path / "out" / "pairs.csv").read_bytes()


def test_a_c_library_that_is_not_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.os, "environ", {})
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()


def test_files_are_opened_without_the_flags_of_one_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmd_cli.errors import ForeignFileError
    from lmd_cli.runtime import files

    monkeypatch.delattr("os.O_NOFOLLOW")
    monkeypatch.delattr("os.O_NONBLOCK")
    try:
        importlib.reload(files)
        (tmp_path / "file").write_bytes(b"kept")
        (tmp_path / "link").symlink_to(tmp_path / "file")
        assert files.read_own(tmp_path / "file") == b"kept"
        with pytest.raises(ForeignFileError, match="a symbolic link"):
            files.read_own(tmp_path / "link")
    finally:
        monkeypatch.undo()
        importlib.reload(files)
