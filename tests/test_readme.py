"""Every command and example of the README and the model zoo's page runs, and the YAMLs are the ones
that they name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ZOO = (ROOT / "models" / "README.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def commands() -> list[str]:
    """Command lines, without the installation in front (CI installs before the tests)."""
    found = [*blocks("bash"), *blocks("bash", ZOO)]
    lines = [line for block in found for line in block.strip().splitlines()]
    return [re.sub(r"^pip install .*? && ", "", line) for line in lines]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder away from the checkout, with the scripts in reach."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    return folder


def test_the_first_commands_are_the_installation() -> None:
    install = [line for block in blocks("bash") for line in block.splitlines() if "pip" in line]
    assert install == [
        "pip install -c constraints.txt . && lmd evaluate --config demo.yaml",
        "pip install -c constraints.txt -e '.[test]' && pytest",
    ]
    ci = (ROOT / ".ci" / "run").read_text()
    assert "pip install --quiet -c constraints.txt -e '.[test]' && pytest" in ci


@pytest.mark.parametrize("command", [c for c in commands() if c != "pytest"])
def test_command_runs(command: str, workspace: Path) -> None:
    binaries = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=workspace, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("example", blocks("python"))
def test_example_runs(example: str) -> None:
    exec(compile(example, "README.md", "exec"), {})


def test_named_files_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
    configs = set(re.findall(r"--config (\S+\.yaml)", README + ZOO))
    assert configs
    assert [name for name in configs if not (ROOT / "configs" / name).exists()] == []
