"""Several processes of one ``lmd score`` by intervention: the same bytes as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmd_cli.config.loading import load_config
from lmd_cli.workflows.score import score
from tests.support.forked_processes import ended, free_port, ranks, slurm, start

METHODS = ("lmd", "leave-one-out")


@pytest.fixture(scope="module")
def alone(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes."""
    folder = tmp_path_factory.mktemp("alone")
    score(load_config(str(tiny_config)), folder, METHODS, limit=5, resamples=20, truth="both")
    return folder


def arguments(config: Path, out: Path, limit: int = 5, truth: str = "both") -> list[str]:
    where = ("--config", str(config), "--output", str(out), "--limit", str(limit))
    methods = (word for name in METHODS for word in ("--method", name))
    return ["score", *where, *methods, "--truth", truth, "--resamples", "20"]


def test_ranks_write_what_one_process_writes(tiny_config: Path, alone: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert ended(ranks(arguments(tiny_config, out, 3), 2, tmp_path)) == [0, 0]
    assert len((out / "finished.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "rank-1.txt").read_text() == ""
    assert ended(ranks(arguments(tiny_config, out), 2, tmp_path)) == [0, 0]
    assert not (out / "finished").exists()
    for name in ("score.csv", "vehicles.csv", "interventions.csv", "agreement.csv"):
        assert (out / name).read_bytes() == (alone / name).read_bytes()
    recorded = [json.loads((f / "run.json").read_text()) for f in (out, alone)]
    assert recorded[0]["entries"] == recorded[1]["entries"]


def test_a_rank_with_another_truth_is_refused(tiny_config: Path, tmp_path: Path):
    out, port = tmp_path / "out", free_port()
    truths = ("both", "intervention")
    pids = [
        start(
            arguments(tiny_config, out, truth=truth),
            tmp_path / f"rank-{rank}.txt",
            slurm(rank, 2, port),
        )
        for rank, truth in enumerate(truths)
    ]
    first, second = ended(pids)
    assert first != 0
    assert second == 2
    said = (tmp_path / "rank-1.txt").read_text()
    assert "rank 1 is not like rank 0" in said
    assert "rows.truth: 'both' there, 'intervention' here" in said
