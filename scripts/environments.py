"""Installs the program with several versions of Python, torch and numpy, and tries it in each.

    python scripts/environments.py                         # all of them, one table
    python scripts/environments.py 3.13 lowest             # some of them
    python scripts/environments.py --list                  # what would be run
    python scripts/environments.py --interpreter 3.14=/opt/python3.14/bin/python3

Needs uv (``pip install uv``) and the interpreters; one that is missing is a line of the table. In
each environment: the package and its dependencies are installed, the tests of the engine's core, of
configs and of data files run (a minute), and the demo evaluates one sample. An environment takes up
to 7 GB (torch with CUDA), and is removed when it was tried; --keep leaves it. The exit code is 1 if
any of them failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
#: What the tests and their fixtures import.
RUNNERS = ("pytest>=8", "pytest-xdist", "hypothesis", "expecttest", "einops")
CORE = tuple(
    f"tests/decomposition/{name}.py"
    for name in ("test_api", "linearised/test_replay", "rules/test_linear", "tracing/test_inplace")
)
#: Of what comes from outside: configs, tables and data files; those that need no nuscenes-devkit.
INPUTS = (
    *("tests/config/test_config.py", "tests/config/test_yaml_text.py"),
    *(f"tests/data/nuscenes/test_{name}.py" for name in ("files", "pcd", "pictures", "roots")),
    *(f"tests/data/nuscenes/index/test_{name}.py" for name in ("elements", "forged", "tables")),
)
VERSIONS = (
    "import sys, torch, numpy; "
    "print(sys.version.split()[0], torch.__version__.split('+')[0], numpy.__version__)"
)


@dataclass(frozen=True)
class Environment:
    """What is tried together.

    Attributes:
        name: what it is called.
        python: the interpreter's version.
        requirements: beside the package's own.
        options: of ``uv pip install``.
    """

    name: str
    python: str
    requirements: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


ENVIRONMENTS = (
    Environment("lowest", "3.10", options=("--resolution", "lowest-direct")),
    Environment("3.10", "3.10", ("torch==2.5.*", "numpy<2")),
    Environment("3.11", "3.11", options=("-c", str(PROJECT / "constraints.txt"))),
    Environment("3.12", "3.12", ("torch==2.6.*", "numpy<2")),
    Environment("3.13", "3.13", ("torch==2.9.*", "numpy>=2")),
    Environment("3.14", "3.14", ("numpy>=2",)),
)


def steps(
    environment: Environment, python: str, folder: Path
) -> Iterator[tuple[str, list[str], Path]]:
    """Names, commands and working folders of what is done in an environment, in order.

    Args:
        python: the interpreter.
        folder: where the environment and everything else goes.
    """
    home = folder / environment.name
    own = home / ("Scripts" if os.name == "nt" else "bin")
    install = ["uv", "pip", "install", "--quiet", "--python", str(own / "python")]
    yield "venv", ["uv", "venv", "--quiet", "--clear", "--python", python, str(home)], folder
    wanted = [*environment.options, *environment.requirements, str(PROJECT)]
    yield "install", [*install, *wanted], folder
    yield "runners", [*install, *RUNNERS, *environment.requirements], folder
    yield "versions", [str(own / "python"), "-c", VERSIONS], folder
    # A copy of the tests: the package that is tried is the installed one, not the checkout's.
    quiet = [f"--rootdir={folder}", "-o", f"pythonpath={folder}", "--import-mode=importlib"]
    quiet += ["-q", "-o", "addopts=", "-p", "no:cacheprovider", "--tb=line"]
    # Channels are shuffled without a derivative in older torch: nothing to compare with.
    quiet += ["-k", "not channel_shuffle"]
    yield "tests", [str(own / "pytest"), *quiet, *CORE, *INPUTS], folder
    demo = ["evaluate", "--config", "demo.yaml", "--limit", "1", "--overwrite"]
    results = ["--output", str(folder / f"results-{environment.name}")]
    yield "demo", [str(own / "lmd"), *demo, *results], folder


def attempt(environment: Environment, python: str, folder: Path) -> dict[str, str]:
    """Runs the steps, as far as they work; what each said in its last line, and its seconds."""
    actual = {"environment": environment.name}
    for name, command, place in steps(environment, python, folder):
        begin = time.perf_counter()
        surroundings = {**os.environ, "LMD_CACHE": str(folder / "cache")}
        surroundings.pop("PYTHONPATH", None)
        done = subprocess.run(command, cwd=place, env=surroundings, capture_output=True, text=True)
        (folder / f"{environment.name}-{name}.log").write_text(done.stdout + done.stderr)
        last = [*done.stdout.splitlines(), *done.stderr.splitlines() * done.returncode, ""]
        said = next((line.strip() for line in reversed(last) if line.strip()), "")
        print(f"  {name}: {time.perf_counter() - begin:.0f} s {said}", file=sys.stderr)
        actual[name] = "ok" if not done.returncode and name != "versions" else said
        if name == "tests":
            actual[name] = said.partition(" in ")[0]
        if done.returncode:
            actual["failed"] = name
            if name != "tests":
                break
    return actual


def interpreter(version: str, given: Mapping[str, str]) -> str | None:
    """Path of an interpreter: as given, else pyenv's, else the first on the path that starts."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [
        given.get(version),
        *map(str, pyenv.glob(f"{version}.*/bin/python")),
        shutil.which(f"python{version}"),
    ]
    for path in filter(None, candidates):
        if not subprocess.run([path, "-V"], capture_output=True).returncode:
            return path
    return None


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a Markdown table."""
    columns = ("environment", "versions", "tests", "demo")
    lines = ["| environment | Python, torch, numpy | tests | demo |", "|---|---|---|---|"]
    for row in rows:
        cells = [row.get(name) or f"not tried: {row['failed']} failed" for name in columns]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Tries the environments that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=", ".join(e.name for e in ENVIRONMENTS))
    parser.add_argument("--list", action="store_true", help="print the commands alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where environments stay")
    parser.add_argument("--interpreter", action="append", default=[], metavar="VERSION=PATH")
    arguments = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in arguments.interpreter)
    wanted = [e for e in ENVIRONMENTS if not arguments.names or e.name in arguments.names]
    if arguments.list:
        for environment in wanted:
            for name, command, _ in steps(environment, environment.python, Path("DIR")):
                print(f"{environment.name} {name}: {' '.join(command)}")
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.keep or temporary).absolute()
        shutil.copytree(PROJECT / "tests", folder / "tests", dirs_exist_ok=True)
        for environment in wanted:
            print(environment.name, file=sys.stderr)
            python = interpreter(environment.python, given)
            if python is None:
                missing = f"no Python {environment.python} here"
                rows.append({"environment": environment.name, "versions": missing, "failed": "it"})
                continue
            rows.append(attempt(environment, python, folder))
            if not arguments.keep:
                shutil.rmtree(folder / environment.name, ignore_errors=True)
    print(table(rows))
    sys.exit(any("failed" in row for row in rows))


if __name__ == "__main__":
    main()
