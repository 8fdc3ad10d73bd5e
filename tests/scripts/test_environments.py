"""The plan of scripts/environments.py, without installing anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import environments
import pytest
from environments import ENVIRONMENTS, attempt, interpreter, steps, table

ROOT = Path(__file__).parents[2]


def test_every_python_that_may_be_installed_is_tried() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.10,<3.15"' in text
    assert {e.python for e in ENVIRONMENTS} == {f"3.{minor}" for minor in range(10, 15)}
    assert "--resolution lowest-direct" in " ".join(ENVIRONMENTS[0].options)
    assert len({e.name for e in ENVIRONMENTS}) == len(ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: e.name)
def test_what_is_run(environment: Any, tmp_path: Path) -> None:
    plan = {name: (command, place) for name, command, place in steps(environment, "py", tmp_path)}
    assert list(plan) == ["venv", "install", "runners", "versions", "tests", "demo"]
    home = str(tmp_path / environment.name)
    assert plan["venv"][0][-3:] == ["--python", "py", home]
    assert str(ROOT) in plan["install"][0]
    assert all(home in " ".join(command) for command, _ in plan.values())
    files = [part for part in plan["tests"][0] if part.endswith(".py")]
    assert files
    assert all((ROOT / file).is_file() for file in files)
    # In the checkout, tests and demo would run the checkout's package.
    assert plan["tests"][1] == plan["demo"][1] == tmp_path
    assert "--limit 1 " in " ".join(plan["demo"][0])


@pytest.mark.parametrize("broken", ["install", "tests", None])
def test_a_step_that_fails_is_in_the_table(
    broken: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = {"versions": "3.13.0 2.9.1 2.5.5", "tests": "7 passed in 1.00s"}
    names = iter(name for name, *_ in steps(ENVIRONMENTS[0], "py", tmp_path))

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert "PYTHONPATH" not in options["env"]
        name = next(names)
        if name == broken:
            return subprocess.CompletedProcess(command, 1, "1 failed in 2.00s", "")
        return subprocess.CompletedProcess(command, 0, says.get(name, ""), "")

    monkeypatch.setattr(environments.subprocess, "run", run)
    row = table([attempt(ENVIRONMENTS[0], "py", tmp_path)]).splitlines()[-1]
    end = "not tried: install failed"
    assert (
        row
        == {
            "install": f"| lowest | {end} | {end} | {end} |",
            "tests": "| lowest | 3.13.0 2.9.1 2.5.5 | 1 failed | ok |",
            None: "| lowest | 3.13.0 2.9.1 2.5.5 | 7 passed | ok |",
        }[broken]
    )


def test_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert interpreter("2.9", {}) is None
    assert interpreter("2.9", {"2.9": sys.executable}) == sys.executable
    own = tmp_path / "versions" / "2.9.1" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.symlink_to(sys.executable)
    assert interpreter("2.9", {}) == str(own)
