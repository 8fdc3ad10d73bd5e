"""The whole protocol on a tiny synthetic root, against a straightforward implementation."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.data import collate
from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.variant import COALITION_RULES as RULES
from lmd_cli.errors import DataError, ResultsError, RunError
from lmd_cli.evaluation.metrics import mse, pcc
from lmd_cli.evaluation.variants import VariantPredictions
from lmd_cli.results.summary import read_pairs
from lmd_cli.workflows.evaluate import evaluate


@pytest.fixture(scope="module")
def config(tiny_config: Path) -> RunConfig:
    return load_config(str(tiny_config))


@pytest.fixture(scope="module")
def run(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    evaluate(config, folder)
    return folder


def results(folder: Path) -> dict[str, bytes]:
    names = ("pairs.csv", "samples.csv", "metrics.csv", "table.csv", "run.json")
    return {name: (folder / name).read_bytes() for name in names}


def straightforward(
    config: RunConfig, samples: Sequence[int] | None = None
) -> list[tuple[object, ...]]:
    """No schedule: for every sample and offset, encode both and decompose the whole of fuse."""
    dataset = build_dataset(config)
    network = build_network(config, torch.device("cpu")).network
    count, n = config.perturbation.count, len(dataset)
    stride = 1  # auto for 6 samples and 2 offsets

    def features(index: int) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return network.encode(collate([dataset[index]]))

    rows: list[tuple[object, ...]] = []
    for k in range(n) if samples is None else samples:
        for m in range(1, count + 1):
            other = (k + stride * m) % n
            for variant in config.variants:
                perturbed = features(other)
                result = decompose(
                    lambda **f: network.fuse(f, ["segmentation"])["segmentation"],
                    features(k),
                    variant,
                    extras={name: [perturbed[name]] for name in network.modalities},
                )
                for replaced in ("radar", "camera"):
                    for target in ("radar", "camera"):
                        a = result.parts[target]
                        b = result.extras[target][0] if target == replaced else a
                        key = (
                            dataset.tokens[k],
                            dataset.tokens[other],
                            m,
                            variant,
                            replaced,
                            target,
                        )
                        rows.append((*key, pcc(a, b), mse(a, b)))
    return rows


def test_the_schedule_gives_what_the_straightforward_way_gives(
    config: RunConfig, run: Path
) -> None:
    expected = straightforward(config)
    actual = list(read_pairs(run / "pairs.csv").itertuples(index=False, name=None))
    assert [row[:6] for row in actual] == [row[:6] for row in expected]
    for row, reference in zip(actual, expected, strict=True):
        assert row[6] == pytest.approx(reference[6], abs=1e-5)
        assert row[7] == pytest.approx(reference[7], rel=1e-4, abs=1e-12)


def test_kept_sensors_keep_their_prediction(run: Path) -> None:
    metrics = pd.read_csv(run / "metrics.csv")
    kept = metrics[metrics.expected == "keep"]
    assert len(kept) == 4
    assert (kept.pcc_mean - 1).abs().max() < 1e-6
    assert kept.mse_mean.max() == 0.0
    changed = metrics[metrics.expected == "change"]
    assert (changed.mse_mean > 0).all()
    assert (metrics.pairs == 12).all()


def test_identity_and_uniform_have_the_same_error(tiny_config: Path, tmp_path: Path) -> None:
    """Constants cancel in a difference at one operating point, whoever holds them."""
    rules = ("identity-identity", "uniform-identity", "identity-uniform", "uniform-uniform")
    config = load_config(str(tiny_config), [f"variants=[{', '.join(rules)}]"])
    metrics = evaluate(config, tmp_path, limit=1).metrics
    for _, cell in metrics[metrics.expected == "change"].groupby(["perturbed", "target"]):
        assert set(cell.variant) == set(rules)
        assert cell.mse_mean.max() == pytest.approx(cell.mse_mean.min(), rel=1e-4)


def test_slopes_between_coalitions_are_evaluated_as_any_other(
    tiny_config: Path, tmp_path: Path
) -> None:
    """Every row by the straightforward way; checked by replay of the recorded linear program."""
    rules = [f"{base}-{rule}" for base in ("identity-ratio", "uniform-identity") for rule in RULES]
    config = load_config(str(tiny_config), [f"variants=[{', '.join(rules)}]"])
    record = evaluate(config, tmp_path, limit=2).record
    assert record["explained"]["variant"] == "identity-ratio-shapley"
    assert "agree better with known truth" in record["explained"]["why"]
    assert record["conservation_residual"] < 1e-4
    assert record["replay_deviation"] < 1e-4
    rows = list(read_pairs(tmp_path / "pairs.csv").itertuples(index=False, name=None))
    expected = {row[:6]: row[6:] for row in straightforward(config, (0, 1))}
    assert {row[3] for row in rows} == set(rules)
    for row in rows:
        assert row[6] == pytest.approx(expected[row[:6]][0], abs=1e-5)
        assert row[7] == pytest.approx(expected[row[:6]][1], rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("sensors", ["camera, lidar", "camera, radar, lidar"])
def test_lidar_and_three_sensors(tiny_config: Path, tmp_path: Path, sensors: str) -> None:
    settings = [f"model.modalities=[{sensors}]", "variants=[identity-ratio]"]
    summary = evaluate(load_config(str(tiny_config), settings), tmp_path, limit=1)
    kept = summary.metrics[summary.metrics.expected == "keep"]
    assert (kept.pcc_mean - 1).abs().max() < 1e-6
    assert kept.mse_mean.max() == 0.0
    assert summary.record["replay_deviation"] < 1e-4
    three = len(sensors.split(",")) == 3
    assert len(summary.table.columns) == 1 + (18 if three else 8)
    assert len(summary.metrics) == (18 if three else 4)


def test_the_record_says_what_was_run(run: Path, config: RunConfig) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["schedule"] == {"stride": 1, "count": 2}
    assert record["samples"]["count"] == record["evaluated"] == 6
    assert record["weights"]["random"] is True
    assert record["threads"] == 1
    assert record["replay_deviation"] < 1e-4
    assert record["conservation_residual"] < 1e-4
    assert 0.0 <= record["vehicle_iou"] <= 1.0
    assert record["versions"]["torch"] == torch.__version__


def test_going_on_gives_the_same_bytes(config: RunConfig, run: Path, tmp_path: Path) -> None:
    evaluate(config, tmp_path, limit=2)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "2 of 6 samples"
    evaluate(config, tmp_path)
    assert results(tmp_path) == results(run)


def test_a_finished_run_is_not_computed_again(
    config: RunConfig, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = results(run)
    monkeypatch.setattr("lmd_cli.workflows.evaluate.measure", None)
    summary = evaluate(config, run)
    assert results(run) == before
    assert summary.record["status"] == "finished"


def test_another_runs_folder_is_refused_field_by_field(
    config: RunConfig, tiny_config: Path, run: Path
) -> None:
    other = load_config(str(tiny_config), ["perturbation.count=1", "data.nsweeps=1"])
    before = results(run)
    with pytest.raises(ResultsError) as error:
        evaluate(other, run)
    assert "config.perturbation.count: 2 there, 1 here" in str(error.value)
    assert "config.data.nsweeps: 2 there, 1 here" in str(error.value)
    assert results(run) == before


def test_results_are_not_lost_by_accident(config: RunConfig, tmp_path: Path) -> None:
    evaluate(config, tmp_path, limit=1)
    before = results(tmp_path)
    with pytest.raises(ResultsError, match="--overwrite"):
        evaluate(config, tmp_path, limit=1, resume=False)
    (tmp_path / "keep.txt").write_text("mine")
    evaluate(config, tmp_path, limit=1, resume=False, overwrite=True)
    assert results(tmp_path) == before
    assert (tmp_path / "keep.txt").read_text() == "mine"


def damaged(tiny_root: Path, tmp_path: Path) -> tuple[Path, str]:
    """A copy of the root (by links) with one missing image; the token that needs it."""
    root = tmp_path / "damaged"
    tables = json.loads((tiny_root / "v1.0-mini" / "sample_data.json").read_text())
    lost = next(t for t in tables if "CAM_BACK/" in t["filename"] and t["is_key_frame"])
    for path in tiny_root.rglob("*"):
        target = root / path.relative_to(tiny_root)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif str(path.relative_to(tiny_root)) != lost["filename"]:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    return root, lost["sample_token"]


def test_unreadable_samples_stop_or_are_skipped(
    tiny_config: Path, tiny_root: Path, tmp_path: Path
) -> None:
    root, token = damaged(tiny_root, tmp_path)
    config = load_config(str(tiny_config), [f"data.dataroot={root}"])
    with pytest.raises(DataError, match=token):
        evaluate(config, tmp_path / "stop")
    summary = evaluate(config, tmp_path / "skip", on_error="skip")
    assert summary.record["skipped"] == [token]
    assert any(token in note for note in summary.notes)
    with open(tmp_path / "skip" / "pairs.csv") as file:
        rows = list(csv.DictReader(file))
    assert not [r for r in rows if token in (r["sample_token"], r["perturbed_token"])]
    # 6 samples x 2 offsets: the lost sample's 2 pairs and the 2 that need it as a partner
    assert len(rows) == (12 - 4) * 2 * 4


def test_parts_that_are_no_numbers_are_an_error(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = VariantPredictions.under
    monkeypatch.setattr(
        VariantPredictions,
        "under",
        lambda self, name: replace(whole(self, name), residual=torch.tensor(math.nan)),
    )
    with pytest.raises(RunError, match=r"identity-ratio at sample .* is nan, beyond"):
        evaluate(load_config(str(tiny_config)), tmp_path, limit=1)
