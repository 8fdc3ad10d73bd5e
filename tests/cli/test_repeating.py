"""Runs of any command repeated from their records; ``rerun``, ``verify``, ``bundle`` as processes;
the state of the code's repository."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import lmd_cli.data.content as content
from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.results.provenance import read_data_hashes
from lmd_cli.results.record import code_revisions
from lmd_cli.runtime.revision import revision
from lmd_cli.workflows.evaluate import evaluate
from lmd_cli.workflows.rerun import Repeated, rerun
from lmd_cli.workflows.verify import largest_difference, verify
from tests.support.calling import Lmd

ONE = ("--set", "variants=[identity-ratio]", "--limit", "1")
#: Options of a small run, and results that come out the same.
COMMANDS = {
    "score": (("--method", "lmd", "--resamples", "9"), {"score.csv", "vehicles.csv", "score.png"}),
    "sanity": ((), {"sanity.csv", "sanity.png"}),
    "detect": (("--set", "model.instances=components", "--no-parts"), {"detections.json"}),
}


@pytest.fixture(scope="module")
def config(tiny_config: Path) -> RunConfig:
    return load_config(str(tiny_config), ["variants=[identity-ratio]", "perturbation.count=1"])


@pytest.mark.parametrize("name", COMMANDS)
def test_each_commands_run_repeats_to_the_same_bytes(
    lmd: Lmd, tiny_config: Path, tmp_path: Path, name: str
) -> None:
    run, (options, files) = tmp_path / "run", COMMANDS[name]
    result = lmd(name, "-c", tiny_config, *ONE, *options, "--output", run)
    assert result.exit_code == 0, result.output
    done = rerun(run)
    assert done.different == done.changed == []
    assert files <= set(done.same) == set(json.loads((run / "run.json").read_text())["files"])
    checks = {check.name: check for check in verify(done.output).checks}
    assert checks["samples"].detail == "1 computed again: the same to the last digit"
    assert checks["result files"].status == checks["network"].status == "ok"
    assert checks["finished samples"].status == "ok"
    first = sorted(files)[0]
    (done.output / first).write_bytes((done.output / first).read_bytes() + b" ")
    checks = {check.name: check for check in verify(done.output, compute=False).checks}
    assert checks["result files"].status == "FAIL"
    assert checks["result files"].detail == f"{first} changed"


def test_a_finished_sample_of_other_numbers_is_found(
    lmd: Lmd, tiny_config: Path, tmp_path: Path
) -> None:
    result = lmd("sanity", "-c", tiny_config, *ONE, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    lines = tmp_path / "finished.jsonl"
    entry = json.loads(lines.read_text())
    value, entry["rows"][-1][-1] = entry["rows"][-1][-1], 0.0
    lines.write_text(json.dumps(entry) + "\n")
    checks = {check.name: check for check in verify(tmp_path).checks}
    assert checks["finished samples"].status == checks["samples"].status == "FAIL"
    assert checks["samples"].detail == (
        f"1 computed again: largest difference {abs(value):.1e} of a number, or of 1; "
        "expected none on the same processor and versions"
    )


@pytest.mark.parametrize(
    ("there", "here", "distance"),
    [
        ([1, {"a": 2.0}], [1, {"a": 2.0}], 0.0),
        ({"a": 200.0}, {"a": 100.0}, 0.5),
        (float("nan"), float("nan"), 0.0),
        ([1], [2], float("inf")),
        ({"a": 1.0}, {"b": 1.0}, float("inf")),
        ("found", "missed", float("inf")),
        ([1.0], [1.0, 2.0], float("inf")),
    ],
)
def test_differences_of_entries(there: Any, here: Any, distance: float) -> None:
    assert largest_difference(there, here) == distance


def test_every_data_file_is_hashed_on_request(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "SAMPLES", 1)
    few, whole = tmp_path / "few", tmp_path / "whole"
    evaluate(config, few, limit=1)
    evaluate(config, whole, limit=1, hash_data=True)
    some, every = read_data_hashes(few), read_data_hashes(whole)
    assert some.items() < every.items()
    images = {name for name in every if "/CAM_FRONT/" in name}
    assert len(images) == 6  # of every sample
    assert len({name for name in some if "/CAM_FRONT/" in name}) == 1


def test_rerun_verify_and_bundle_as_processes(config: RunConfig, tmp_path: Path) -> None:
    evaluate(config, tmp_path / "run", limit=1)

    def said(*arguments: str) -> str:
        command = [sys.executable, "-m", "lmd_cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "pairs.csv" in said("rerun", "run")
    again, run = (json.loads((tmp_path / n / "run.json").read_text()) for n in ("run-rerun", "run"))
    assert again["files"] == run["files"]
    assert "1 computed again: the same to the last digit" in said("verify", "run", "--samples", "1")
    assert "sha256" in said("bundle", "run")
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        assert {"run/run.json", "run/manifest.json", "run/report.html"} <= set(archive.namelist())


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ([], "the same results, byte for byte"),
        (["notes.txt"], "the same numbers in every table; notes.txt reads otherwise"),
        (["pairs.csv", "notes.txt"], "not the same results: pairs.csv, notes.txt"),
    ],
)
def test_a_repetition_ends_with_a_verdict(
    lmd: Lmd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, different: list[str], said: str
) -> None:
    monkeypatch.setattr(
        "lmd_cli.workflows.rerun.rerun",
        lambda *_, **__: Repeated(tmp_path, ["table.csv"], different, []),
    )
    result = lmd("rerun", tmp_path)
    assert result.exit_code == (1 if different else 0)
    assert f"verdict: {said}\n" in result.stdout


# -- the code's repository ----------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    named = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *named, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def seen(source: Path) -> dict[str, Any]:
    """What a new process would record: a revision is looked up once."""
    revision.cache_clear()
    return revision(source)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One with ``network.py``, committed."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "network.py").write_text("def network():\n    pass\n")
    (folder / "notes.txt").write_text("\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_a_repository_that_is_clean_dirty_or_none(repository: Path) -> None:
    network, commit = repository / "network.py", git(repository, "rev-parse", "HEAD")
    clean = seen(network)
    assert (clean["commit"], clean["modified"]) == (commit, False)
    (repository / "loose.py").write_text("x = 1\n")
    assert seen(network) == clean  # a file that git does not track is not the network's
    assert list(seen(repository / "loose.py")) == ["sha256"]
    network.write_text("def network():\n    return 1\n")
    dirty = seen(network)
    assert (dirty["commit"], dirty["modified"]) == (commit, True)
    assert dirty["sha256"] != clean["sha256"]
    git(repository, "commit", "-q", "-a", "-m", "second")
    assert seen(network) == {**dirty, "commit": git(repository, "rev-parse", "HEAD")} | {
        "modified": False
    }


def test_the_networks_code_in_its_own_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository))
    monkeypatch.setitem(sys.modules, "network", importlib.import_module("network"))
    section = {"target": "network:network", "modalities": ["a", "b"], "output": "x"}
    config = RunConfig.model_validate({"model": section, "data": {"target": "network:network"}})
    code = code_revisions(config)
    assert code["model"] == code["data"] == seen(repository / "network.py")
    assert code["model"]["commit"] == git(repository, "rev-parse", "HEAD")
    assert code["lmd"].get("commit") != code["model"]["commit"]
