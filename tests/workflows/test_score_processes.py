"""Several processes of one ``lmd score`` by intervention: the same bytes as one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lmd_cli.config.loading import load_config
from lmd_cli.workflows.score import score
from tests.support.forked_processes import ended, free_port, ranks, slurm, start

METHODS = ("lmd", "leave-one-out")
#: A network whose samples 1 and 4 hold operators without a rule, other ones.
MODULE = """
import torch
from torch import nn
from lmd_cli.data import Region

LEFT = (torch.arange(8) < 4).expand(6, 8)
NO_RULE = {1: torch.special.bessel_j0, 4: torch.special.bessel_j1}


class Data:
    def __len__(self):
        return 6

    def __getitem__(self, i):
        a, b = torch.rand(2, 1, 6, 8, generator=torch.Generator().manual_seed(i))
        return {"a": a, "b": b, "number": torch.tensor(float(i))}

    def regions(self, i):
        both = enumerate((LEFT, ~LEFT))
        return [Region(f"{i}-{k}", mask, {"a": k, "b": 1 - k}) for k, mask in both]


class Net(nn.Module):
    modalities = ("a", "b")

    def encode(self, batch):
        self.number = int(batch["number"])
        return {name: batch[name] for name in self.modalities}

    def fuse(self, features):
        activation = NO_RULE.get(self.number, torch.relu)
        return {"risk": activation(features["a"] + features["b"])}
"""
CONFIG = """
model: {target: 'unruly:Net', modalities: [a, b], output: risk}
data: {target: 'unruly:Data'}
threads: 1
"""


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


@pytest.fixture
def unruly(tmp_path: Path) -> Path:
    """The config of a network that most methods cannot explain at two samples."""
    (tmp_path / "unruly.py").write_text(MODULE)
    (tmp_path / "unruly.yaml").write_text(CONFIG)
    return tmp_path / "unruly.yaml"


def test_methods_that_are_left_out_are_the_same_in_ranks_and_resumed(
    unruly: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rank meets another operator first; a resumed run has not met the first one itself."""
    chosen = ("lmd:identity-ratio", "leave-one-out", "partial-activations", "shapley", "lrp")
    monkeypatch.setattr("lmd_cli.workflows.score.DEFAULT_METHODS", chosen)
    alone, shared, resumed = (tmp_path / name for name in ("alone", "shared", "resumed"))
    summary = score(load_config(unruly), alone, resamples=20)
    record = json.loads((alone / "run.json").read_text())
    assert record["methods"] == list(summary.scores) == ["leave-one-out", "shapley"]
    assert list(record["left_out"]) == ["lmd:identity-ratio", "partial-activations", "lrp"]
    assert all("bessel_j0" in why for why in record["left_out"].values())
    given = ["score", "--config", str(unruly), "--resamples", "20", "--output"]
    assert ended(ranks([*given, str(shared)], 2, tmp_path)) == [0, 0]
    shutil.copytree(alone, resumed)
    lines = (alone / "finished.jsonl").read_bytes().splitlines(keepends=True)
    (resumed / "finished.jsonl").write_bytes(b"".join(lines[:3]) + b"{")
    left = {k: v for k, v in record.items() if k not in ("entries", "files")}
    (resumed / "run.json").write_text(json.dumps(left | {"status": "unfinished"}))
    again = score(load_config(unruly), resumed, resamples=20)
    assert again.notes == summary.notes
    for folder in (shared, resumed):
        other = json.loads((folder / "run.json").read_text())
        for key in ("methods", "left_out", "missed_by_steps", "verdict", "entries", "files"):
            assert other[key] == record[key]
        for name in ("score.csv", "vehicles.csv"):
            assert (folder / name).read_bytes() == (alone / name).read_bytes()


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
