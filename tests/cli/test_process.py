"""Real processes: start-up, ``python -m``, Ctrl-C, and an installed wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.support.calling import Lmd

CHECKOUT = Path(__file__).resolve().parents[2]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "lmd_cli", *(str(argument) for argument in arguments)]


def environment(path: Path = CHECKOUT) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}


def run(*arguments: object, folder: Path, path: Path = CHECKOUT) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(path), capture_output=True, text=True
    )


def test_start_up_needs_no_torch():
    heavy = "torch numpy pandas matplotlib pydantic nuscenes"
    code = f"import sys, lmd_cli.cli.app; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True)
    assert done.stdout.strip() == b"[]"


def test_python_m_prints_one_message_and_no_traceback(tmp_path: Path):
    done = run("decompose", "--config", "nope", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: config nope not found")
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error(tiny_config: Path, tmp_path: Path):
    # Quietly: the first to open the data says that its tables are indexed.
    line = " ".join(command("samples", "-c", tiny_config, "--quiet")) + " | true"
    done = subprocess.run(line, shell=True, env=environment(), capture_output=True, text=True)
    assert done.stderr == ""


def test_ctrl_c_keeps_the_rows_and_the_same_command_goes_on(
    lmd: Lmd, tiny_config: Path, tmp_path: Path
):
    arguments = ("evaluate", "-c", tiny_config, "--output", "out")
    straight = lmd(*arguments[:-1], tmp_path / "straight")
    assert straight.exit_code == 0, straight.output
    process = subprocess.Popen(
        command(*arguments),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    rows = tmp_path / "out" / "samples.csv"
    deadline = time.monotonic() + 60
    while not (rows.exists() and rows.read_text().count("\n") > 1):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it finished before it could be interrupted"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 20  # a second or two, unless the machine is busy
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "finished rows are kept in out; the same command goes on from there" in errors
    assert rows.read_text().count("\n") > 1
    assert lmd(*arguments[:-1], tmp_path / "out").exit_code == 0
    for name in ("pairs.csv", "metrics.csv", "table.csv", "run.json"):
        again, once = (tmp_path / folder / name for folder in ("out", "straight"))
        assert again.read_bytes() == once.read_bytes(), name


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked where nothing else is."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_an_installed_wheel_finds_its_configs_from_anywhere(
    installed: Path, tiny_root: Path, tmp_path: Path
):
    """Several commands in one process: most of a command's time is the import of torch."""
    given = ["lmd", "samples", "--dataroot", str(tiny_root), "--config"]
    code = f"""
import sys, lmd_cli.__main__ as lmd
for name in ("demo.yaml", "demo", "radar_cam_mini", "dmeo"):
    sys.argv = [*{given}, name]
    try:
        code = lmd.main()
    except SystemExit as end:
        code = end.code
    print("exit", code, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(installed),
        capture_output=True,
        text=True,
    )
    assert [len(rows.splitlines()) for rows in done.stdout.split("exit ")] == [6, 7, 7, 1, 1]
    assert re.findall(r"exit (\w+)", done.stdout) == ["0", "0", "0", "2"], done.stderr
    assert "did you mean demo.yaml?" in done.stderr


def test_a_wheel_holds_the_models_and_no_tests(installed: Path):
    shipped = {path.name for path in (CHECKOUT / "models").glob("*.safetensors")}
    assert {path.name for path in (installed / "lmd_cli" / "_models").glob("*.safetensors")} == (
        shipped
    )
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"lmd_cli"}
