"""Every command of the README, of the pages and of the model zoo's page runs, the README's example
too, and the YAMLs are the ones that they name."""

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
DOCS = ROOT / "lmd_cli" / "docs"
#: Its commands need the files that it shows; ``tests/cli/test_custom.py`` runs them.
EXTENDING = DOCS / "extending.md"
PAGES = [page.read_text() for page in sorted(DOCS.glob("*.md")) if page != EXTENDING]


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def extending_commands() -> list[str]:
    """Those of the page with the complete example, less the example's own."""
    return [block for block in blocks("bash", EXTENDING.read_text()) if "scanner" not in block]


def commands() -> list[str]:
    """Command lines, each once, without the installation (CI installs before the tests)."""
    shown = [block for page in (README, *PAGES, ZOO) for block in blocks("bash", page)]
    lines = [line for block in shown + extending_commands() for line in block.strip().splitlines()]
    return list(dict.fromkeys(re.sub(r"^pip install .*? && ", "", line) for line in lines))


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


def test_commands_of_all_pages_are_run() -> None:
    assert len(commands()) >= 23
    used = {line.split()[1] for line in commands() if line.startswith("lmd ")}
    assert used >= {"evaluate", "table", "score", "sanity", "report", "decompose", "gradcam"}
    assert used >= {"inspect", "check", "samples", "synthesize"}
    assert commands()[0] == "lmd evaluate --config demo.yaml"  # lmd report shows its run


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
    configs = set(re.findall(r"--config (\S+\.yaml)", "\n".join([README, *PAGES, ZOO])))
    assert configs
    assert [name for name in configs if not (ROOT / "configs" / name).exists()] == []
