"""A run that dies, or finds the disk full, at any moment that touches the disk, and goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmd_cli.cli.errors import explain
from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.errors import RunError
from lmd_cli.evaluation.comparisons import table_comparisons
from lmd_cli.results.pair_rows import Stretch
from lmd_cli.results.run_folder import FILES
from lmd_cli.results.summary import paper_table, read_pairs
from lmd_cli.runtime.stopwatch import Stopwatch
from lmd_cli.workflows import evaluate as runner
from lmd_cli.workflows import finish
from lmd_cli.workflows.evaluate import evaluate
from tests.support.failing_disk import DiedError, FailingDisk

LIMIT = 3


@pytest.fixture(scope="module")
def config(tiny_config: Path) -> RunConfig:
    return load_config(str(tiny_config), ["variants=[identity-ratio]", "perturbation.count=1"])


@pytest.fixture(scope="module")
def measured(
    config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[runner.Run, dict[int, Any], Path]:
    """A prepared run, the rows that it measures at each position, and its folder."""
    rows: dict[int, Any] = {}

    def remember(task: Any, visit: Any, *args: Any) -> Any:
        rows[visit.position] = measure(task, visit, *args)
        return rows[visit.position]

    measure, folder = runner.measure, tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "measure", remember)
        evaluate(config, folder, limit=LIMIT)
    return runner.prepare(config, limit=LIMIT), rows, folder


@pytest.fixture
def quick(
    measured: tuple[runner.Run, dict[int, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs without computing again what is known."""
    run, rows, _ = measured

    def walk(schedule: Any, encode: Any, first: int, last: int, *rest: Any) -> Iterator[Any]:
        for position in range(first, last):
            token = run.dataset.tokens[run.schedule.sample(position)]
            yield SimpleNamespace(position=position, sample=SimpleNamespace(token=token))

    cells = table_comparisons(run.built.network.modalities)
    known: dict[bytes, Any] = {}

    def summarise(path: Path, *args: Any) -> Any:
        pairs = path.read_bytes()
        if pairs not in known:
            metrics = real_summarise(read_pairs(path), *args)
            known[pairs] = (metrics, paper_table(metrics, cells))
        return known[pairs][0]

    def table(metrics: Any, cells: Any) -> Any:
        return next(table for known_metrics, table in known.values() if known_metrics is metrics)

    real_summarise = finish.summarise
    monkeypatch.setattr(finish, "read_pairs", lambda path: path)
    monkeypatch.setattr(finish, "summarise", summarise)
    monkeypatch.setattr(finish, "paper_table", table)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(runner, "prepare", lambda *args, **kwargs: run)
    monkeypatch.setattr(runner, "Encoder", lambda *args, **kwargs: None)
    monkeypatch.setattr(runner, "walk", walk)
    monkeypatch.setattr(runner, "measure", lambda task, visit, *args: rows[visit.position])


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that a run leaves but its locks; of times only that they are there."""
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", ".ranks")
    }
    assert set(files) == set(FILES)
    files["timings.csv"] = files["invocations.jsonl"] = b""
    return files


def prepare_fresh(folder: Path, config: RunConfig, rows: dict[int, Any]) -> None:
    """Nothing."""


def prepare_ranks(folder: Path, config: RunConfig, rows: dict[int, Any]) -> None:
    """What three ranks left that were killed: the first's sample, and the third's first."""
    evaluate(config, folder, limit=1)
    for first in (1, 2):
        stretch = Stretch(folder, first)
        stretch.trim()
    stretch.append(rows[2].pairs, rows[2].sample, ("t", 0.0, 0.0))
    with open(stretch.pairs.path, "ab") as file:
        file.write(b"torn")


def prepare_finished(folder: Path, config: RunConfig, rows: dict[int, Any]) -> None:
    """All of it."""
    evaluate(config, folder, limit=LIMIT)


Prepare = Callable[[Path, RunConfig, dict[int, Any]], None]


@pytest.mark.parametrize(
    ("prepare", "overwrite", "full"),
    [
        (prepare_fresh, False, False),
        (prepare_fresh, False, True),
        (prepare_ranks, False, False),
        (prepare_ranks, False, True),
        (prepare_finished, True, False),
    ],
)
@pytest.mark.usefixtures("quick")
def test_every_moment_can_be_the_last(
    config: RunConfig,
    measured: tuple[runner.Run, dict[int, Any], Path],
    tmp_path: Path,
    prepare: Prepare,
    overwrite: bool,
    full: bool,
) -> None:
    _, rows, straight = measured
    expected = contents(straight)
    prepare(tmp_path / "before", config, rows)
    (tmp_path / "before").mkdir(exist_ok=True)
    failed, moment = True, 0
    while failed:
        moment += 1
        folder = tmp_path / str(moment)
        shutil.copytree(tmp_path / "before", folder)
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, moment, full=full)
            failed = fails(config, folder, overwrite, full)
        evaluate(config, folder, limit=LIMIT)
        assert contents(folder) == expected, moment
    assert moment > 50


def fails(config: RunConfig, folder: Path, overwrite: bool, full: bool) -> bool:
    """Whether the run fails; and if so, as it should."""
    try:
        evaluate(config, folder, limit=LIMIT, overwrite=overwrite)
    except DiedError:
        assert not full
        return True
    except RunError as error:
        assert full
        message, code = explain(error) or ("", 0)
        assert code == 1
        assert message.startswith(f"cannot write {folder}")
        assert message.endswith("free some space and run the same command again to go on")
        return True
    return False


def test_a_clock_that_jumps_back_gives_no_negative_times(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 101.0, 95.0, 90.0, 91.0])
    monkeypatch.setattr("lmd_cli.runtime.stopwatch.time.monotonic", lambda: next(times))
    stopwatch = Stopwatch()
    with stopwatch.reading():
        pass
    assert stopwatch.lap() == (0.0, 0.0)
    assert stopwatch.lap() == (0.0, 1.0)


def test_old_folders_without_stretches_go_on(
    config: RunConfig, measured: tuple[runner.Run, dict[int, Any], Path], tmp_path: Path
) -> None:
    """Two files, one of them torn, and no lock files: as before there were ranks."""
    _, _, straight = measured
    for name in ("pairs.csv", "samples.csv", "timings.csv", "run.json"):
        shutil.copy(straight / name, tmp_path / name)
    record = json.loads((tmp_path / "run.json").read_text())
    del record["files"]  # there were no hashes of results either
    (tmp_path / "run.json").write_text(json.dumps(record))
    with open(tmp_path / "samples.csv", "rb+") as file:
        file.truncate(len((straight / "samples.csv").read_bytes()) - 7)
    evaluate(config, tmp_path, limit=LIMIT)
    assert contents(tmp_path) == contents(straight)
