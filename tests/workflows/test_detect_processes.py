"""Several processes of one ``lmd detect``: the same bytes as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmd_cli.config.loading import load_config
from lmd_cli.results.finished import FinishedSamples
from lmd_cli.workflows.detect import WhoseParts, detect
from tests.support.forked_processes import ended, free_port, ranks, slurm, start


@pytest.fixture(scope="module")
def alone(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    folder = tmp_path_factory.mktemp("alone")
    detect(load_config(str(tiny_config)), folder, whose=WhoseParts(["identity-ratio"]))
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """All results of a finished run, and no other file."""
    names = {path.name for path in folder.iterdir()} - {".lock", ".ranks", "invocations.jsonl"}
    assert names >= {"detections.json", "detections.csv", "detection_metrics.json", "run.json"}
    assert "finished" not in names
    return {name: (folder / name).read_bytes() for name in names}


def arguments(config: Path, out: Path, *more: str) -> list[str]:
    where = ("--config", str(config), "--output", str(out))
    return ["detect", *where, "--variant", "identity-ratio", *more]


def test_ranks_write_what_one_process_writes(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path
):
    out = tmp_path / "out"
    assert ended(ranks(arguments(tiny_config, out, "--limit", "4"), 2, tmp_path)) == [0, 0]
    assert len((out / "finished.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "rank-1.txt").read_text() == ""
    assert ended(ranks(arguments(tiny_config, out), 2, tmp_path)) == [0, 0]
    assert contents(out) == alone


def test_what_a_rank_left_behind_is_used(
    tiny_config: Path, alone: dict[str, bytes], tmp_path: Path
):
    out = tmp_path / "out"
    out.mkdir()
    record = json.loads(alone["run.json"]) | {"status": "unfinished"}
    unfinished = {k: v for k, v in record.items() if k not in ("entries", "files")}
    (out / "run.json").write_text(json.dumps(unfinished))
    lines = alone["finished.jsonl"].splitlines(keepends=True)
    (out / "finished.jsonl").write_bytes(b"".join(lines[:2]))
    kept = FinishedSamples(out)
    kept.stretch(3).append(b"".join(lines[3:5]) + b'{"sample": "torn')
    assert kept.merge() == 2
    assert kept.missing(2, 6) == [range(2, 3), range(5, 6)]
    log = ended(ranks(arguments(tiny_config, out), 1, tmp_path))
    assert log == [0]
    assert "detect: 2 to do" in (tmp_path / "rank-0.txt").read_text()
    assert contents(out) == alone


def test_a_rank_with_other_rules_is_refused(tiny_config: Path, tmp_path: Path):
    out, port = tmp_path / "out", free_port()
    other = [*arguments(tiny_config, out), "--variant", "uniform-identity"]
    pids = [
        start(arguments(tiny_config, out), tmp_path / "rank-0.txt", slurm(0, 2, port)),
        start(other, tmp_path / "rank-1.txt", slurm(1, 2, port)),
    ]
    first, second = ended(pids)
    assert first != 0
    assert second == 2
    assert "rank 1 is not like rank 0" in (tmp_path / "rank-1.txt").read_text()
