"""Other methods under the protocol, against each taken by itself at whole features."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.attribution import method_named
from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.data import collate
from lmd_cli.decomposition import decompose
from lmd_cli.errors import MethodError, ResultsError
from lmd_cli.evaluation.metrics import mse, pcc
from lmd_cli.results.summary import read_pairs
from lmd_cli.workflows.evaluate import evaluate
from lmd_cli.workflows.setup import resolve_methods

METHODS = (
    "leave-one-out",
    "partial-activations",
    "partial-normalisations",
    "shapley",
    "lmd-shapley",
    "gradient-x-input",
)


@pytest.fixture(scope="module")
def config(tiny_config: Path) -> RunConfig:
    return load_config(str(tiny_config))


@pytest.fixture(scope="module")
def run(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baselines")
    evaluate(config, folder, methods=["lmd:identity-ratio", *METHODS, "partial-everything"])
    return folder


def pairs(folder: Path) -> pd.DataFrame:
    return read_pairs(folder / "pairs.csv")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_at_whole_features(run: Path, config: RunConfig, name: str) -> None:
    """No fusion layer taken apart, no batches, nothing shared."""
    dataset = build_dataset(config)
    network = build_network(config, torch.device("cpu")).network

    def fuse(**features: Tensor) -> Tensor:
        return network.fuse(features, ["segmentation"])["segmentation"]

    def features(token: str) -> dict[str, Tensor]:
        with torch.no_grad():
            return network.encode(collate([dataset[dataset.index_of(token)]]))

    actual = pairs(run)
    actual = actual[(actual.variant == method_named(name).name) & (actual.offset == 2)]
    token = actual.sample_token.iloc[0]
    rows = actual[actual.sample_token == token]
    assert len(rows) == 4
    clean = features(token)
    explainer = method_named(name).at(fuse, clean)  # type: ignore[union-attr]
    before = explainer.parts(clean)
    for row in rows.itertuples():
        moved = {**clean, row.perturbed: features(row.perturbed_token)[row.perturbed]}
        after = explainer.parts(moved)
        a, b = after[row.target], before[row.target]
        assert row.pcc == pytest.approx(pcc(a, b), abs=2e-4)
        assert row.mse == pytest.approx(mse(a, b), rel=2e-3, abs=1e-9)


def test_with_everything_linearised_the_baseline_is_lmd(run: Path) -> None:
    actual = pairs(run)
    lmd = actual[actual.variant == "identity-ratio"].reset_index(drop=True)
    baseline = actual[actual.variant == "partial-everything"].reset_index(drop=True)
    keys = ["sample_token", "perturbed_token", "offset", "perturbed", "target"]
    pd.testing.assert_frame_equal(lmd[keys], baseline[keys])
    assert (lmd.pcc - baseline.pcc).abs().max() < 1e-4
    scale = lmd.mse.max()
    assert (lmd.mse - baseline.mse).abs().max() < 1e-4 * scale


def test_the_table_has_a_row_for_each_method(run: Path) -> None:
    table = pd.read_csv(run / "table.csv")
    names = [method_named(name).name for name in METHODS]
    assert table.variant.tolist() == ["identity-ratio", *names, "partial-everything"]
    notes = (run / "notes.txt").read_text()
    assert "In LMD's rows, columns R_p/C, C_p/R are 1 (PCC) and 0 (MSE) by construction" in notes


def test_a_baseline_changes_the_kept_sensors_part(run: Path) -> None:
    """Which is what table 1 shows."""
    actual = pairs(run)
    kept = actual[(actual.variant == "leave-one-out") & (actual.perturbed != actual.target)]
    assert (kept.pcc < 0.999).any()
    assert (kept.mse > 0).all()


def test_baselines_alone_resume_to_the_same_bytes(config: RunConfig, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    evaluate(config, whole, methods=["shapley", "leave-one-out"])
    evaluate(config, cut, methods=["shapley", "leave-one-out"], limit=2)
    evaluate(config, cut, methods=["shapley", "leave-one-out"])
    for name in ("pairs.csv", "samples.csv", "metrics.csv", "table.csv", "notes.txt", "run.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
    assert "by construction" not in (whole / "notes.txt").read_text()
    with pytest.raises(ResultsError, match="rows: "):
        evaluate(config, whole)


def test_methods_share_passes_and_nothing_else(
    run: Path, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each method's rows are byte for byte those of the method alone, in any order."""
    together = pairs(run)
    for names in (["leave-one-out"], ["lmd-shapley", "partial-normalisations"]):
        folder = tmp_path / names[0]
        evaluate(config, folder, methods=names[::-1])
        for name in names:
            row = method_named(name).name
            alone = (folder / "pairs.csv").read_text().splitlines()
            shared = (run / "pairs.csv").read_text().splitlines()
            wanted = [line for line in alone if f",{row}," in line]
            assert wanted == [line for line in shared if f",{row}," in line]
            assert len(wanted) == len(together[together.variant == row])


def test_lmd_means_the_configs_variants(config: RunConfig, tmp_path: Path) -> None:
    plain, named = tmp_path / "plain", tmp_path / "named"
    evaluate(config, plain, limit=1)
    evaluate(config, named, methods=["lmd"], limit=1)
    for name in ("pairs.csv", "run.json"):
        assert (plain / name).read_bytes() == (named / name).read_bytes()


def test_linearised_anew_at_the_perturbed_input(config: RunConfig, tmp_path: Path) -> None:
    """Against a decomposition of whole perturbed features; nothing holds by construction."""
    evaluate(config, tmp_path, relinearise=True, limit=1)
    actual = pairs(tmp_path)
    assert list(actual.variant.unique()) == [
        "identity-ratio@perturbed",
        "uniform-identity@perturbed",
    ]
    kept = actual[actual.perturbed != actual.target]
    assert (kept.pcc < 0.9999).all()
    assert (kept.mse > 0).all()
    dataset = build_dataset(config)
    network = build_network(config, torch.device("cpu")).network
    row = next(actual[actual.variant == "identity-ratio@perturbed"].itertuples())

    def parts(clean: str, replaced: str | None) -> dict[str, Tensor]:
        with torch.no_grad():
            features = network.encode(collate([dataset[dataset.index_of(clean)]]))
            other = network.encode(collate([dataset[dataset.index_of(row.perturbed_token)]]))
        if replaced:
            features[replaced] = other[replaced]
        return dict(
            decompose(lambda **f: network.fuse(f, ["segmentation"])["segmentation"], features).parts
        )

    before = parts(row.sample_token, None)[row.target]
    after = parts(row.sample_token, row.perturbed)[row.target]
    assert row.pcc == pytest.approx(pcc(after, before), abs=2e-4)
    assert row.mse == pytest.approx(mse(after, before), rel=2e-3)
    notes = (tmp_path / "notes.txt").read_text()
    assert "linearised anew" in notes
    assert "by construction" not in notes


def test_methods_are_resolved() -> None:
    variants, baselines = resolve_methods(
        ["shapley", "lmd", "lmd:uniform-identity", "shapley"], ["identity-ratio"]
    )
    assert [variant.name for variant in variants] == ["identity-ratio", "uniform-identity"]
    assert [method.name for method in baselines] == ["shapley"]
    with pytest.raises(MethodError, match=r"lrp works backwards .* gives no map"):
        resolve_methods(["lrp"], [])
