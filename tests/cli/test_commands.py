"""Each command on the tiny root: what it prints and what it writes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lmd_cli.config.loading import load_config
from lmd_cli.workflows.decompose import decompose_sample
from tests.support.calling import Lmd

RANDOM = "random weights (seed 0)"


def test_help_names_every_command(lmd: Lmd):
    result = lmd("--help")
    assert result.exit_code == 0
    for command in (
        "evaluate",
        "decompose",
        "check",
        "table",
        "score",
        "convert",
        "samples",
        "synthesize",
    ):
        assert f"  {command} " in result.stdout
    assert lmd("--version").stdout.startswith("lmd-cli ")


def test_samples_are_lines_that_can_be_searched(lmd: Lmd, tiny_config: Path):
    result = lmd("samples", "--config", tiny_config)
    rows = [line.split(" ") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(i) for i in range(6)]
    assert len({row[1] for row in rows}) == 6
    assert {row[2] for row in rows} == {"scene-0103", "scene-0916"}
    assert (
        lmd("samples", "-c", tiny_config, "--limit", 2).stdout.splitlines()
        == (result.stdout.splitlines()[:2])
    )


def test_decompose_writes_parts_layers_and_picture(lmd: Lmd, tiny_config: Path):
    token = lmd("samples", "-c", tiny_config).stdout.splitlines()[3].split()[1]
    result = lmd("decompose", "-c", tiny_config, "--sample-token", token)
    assert result.exit_code == 0, result.output
    folder = Path("results/tiny/decompose") / token
    for said in (token, RANDOM, "residual ", "camera ", "radar ", "bias ", str(folder)):
        assert said in result.stdout
    arrays = np.load(folder / "parts.npz")
    assert list(arrays) == ["total", "camera", "radar", "bias", "ground_truth"]
    assert all(array.shape == (24, 24) for array in arrays.values())
    parts = sum(arrays[name].astype(np.float64) for name in ("camera", "radar", "bias"))
    np.testing.assert_allclose(parts, arrays["total"], atol=1e-5 * abs(arrays["total"]).max())
    assert set(np.unique(arrays["ground_truth"])) == {0.0, 1.0}
    with Image.open(folder / "decomposition.png") as picture:
        assert picture.width > 1500


def test_layers_csv_has_a_row_for_each_operation(lmd: Lmd, tiny_config: Path):
    lmd("decompose", "-c", tiny_config, "--output", "out")
    layers = pd.read_csv("out/layers.csv", keep_default_na=False)
    assert list(layers.columns) == [
        *("order", "module", "operation", "total_norm", "residual", "parts_residual"),
        *("share_camera", "share_radar", "share_bias"),
    ]
    assert list(layers.order) == list(range(len(layers)))
    assert {"bev_compressor.0", "decoder.bn1"} <= set(layers.module)
    assert layers.residual.max() < 1e-4
    shares = layers[["share_camera", "share_radar", "share_bias"]].sum(axis=1)
    np.testing.assert_allclose(shares, 1.0, atol=1e-12)
    assert layers.share_bias[0] == 0.0  # the fusion layer's inputs hold no bias
    assert layers.share_bias.iloc[-1] > 0.0


def test_decompose_says_where_its_numbers_come_from(lmd: Lmd, tiny_config: Path):
    variant = ["--variant", "uniform-identity"]
    result = lmd("decompose", "-c", tiny_config, "--output", "out", *variant)
    assert "rules uniform-identity" in result.stdout
    onwards = f"results: out; next: lmd evaluate --config {tiny_config}"
    assert result.stdout.splitlines()[-1] == onwards
    record = json.loads(Path("out/decomposition.json").read_text())
    assert record["random_weights"] is True
    assert record["variant"] == "uniform-identity"
    assert record["config"]["model"]["checkpoint"] == "random"
    assert sum(record["shares"].values()) == pytest.approx(1.0)


def test_decompose_gives_the_same_bytes_again(lmd: Lmd, tiny_config: Path):
    for folder in ("a", "b"):
        assert lmd("decompose", "-c", tiny_config, "--output", folder).exit_code == 0
    for first in Path("a").iterdir():
        assert first.read_bytes() == (Path("b") / first.name).read_bytes(), first.name


def test_the_total_is_the_plain_networks_prediction(tiny_config: Path):
    explained = decompose_sample(load_config(tiny_config))
    batch = {
        name: [t] if name.startswith("radar") else t[None]
        for name, t in explained.sample.tensors.items()
    }
    with torch.no_grad():
        plain = explained.built.network(batch)["segmentation"][0, 0]
    assert torch.equal(explained.total, plain)


def test_decompose_with_a_camera_alone_and_with_three_sensors(lmd: Lmd, tiny_config: Path):
    for names in (["camera"], ["camera", "radar", "lidar"]):
        chosen = f"model.modalities=[{', '.join(names)}]"
        result = lmd("decompose", "-c", tiny_config, "--set", chosen, "--output", names[-1])
        assert result.exit_code == 0, result.output
        arrays = np.load(Path(names[-1]) / "parts.npz")
        assert list(arrays) == ["total", *names, "bias", "ground_truth"]


def test_evaluate_prints_the_papers_table_and_where_files_are(
    lmd: Lmd, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = ("--output", "out", "--limit", 2, "--set", "threads=null")
    result = lmd("evaluate", "-c", tiny_config, *given)
    assert result.exit_code == 0, result.output
    for column in ("PCC R_p/R", "PCC C_p/C", "MSE R_p/C", "MSE C_p/R"):
        assert column in result.stdout
    assert "1.00 ± 0.00" in result.stdout
    assert "Random weights" in result.stdout
    assert "files in out: " in result.stdout
    assert result.stdout.splitlines()[-1] == "results: out; next: lmd report out"
    assert (result.output + caplog.text).count("a number that the config leaves open") == 1
    assert "Columns R_p/C, C_p/R are 1 (PCC) and 0 (MSE) by construction" in result.stdout
    assert "Each sensor is replaced by that of 2 other samples, at steps of " in result.stdout
    progress = r"evaluate: 2/2, .* in all, \d+% waiting for data, sample [0-9a-f]{32}"
    assert re.fullmatch(progress, result.stderr.splitlines()[-1])
    assert list(pd.read_csv("out/table.csv").variant) == ["identity-ratio", "uniform-identity"]


def test_check_passes_and_lists_every_rule(lmd: Lmd, tiny_config: Path):
    result = lmd("check", "-c", tiny_config, "--verbose", "--output", "out")
    assert result.exit_code == 0, result.output
    assert RANDOM in result.stdout
    assert result.stdout.splitlines()[-1] == "verdict: a run would work (1 to note)"
    checks = pd.read_csv("out/checks.csv").set_index("name")
    assert set(checks.status) == {"ok", "note"}
    names = " ".join(checks.index)
    for variant in ("identity-ratio", "uniform-identity"):
        for what in (f"{variant}, float32", f"{variant}, float64", f"eq. 14, {variant}"):
            assert what in names
    assert "none missing, 11 channels" in checks.detail["data files"]
    assert "constants of the operating point" in names
    coverage = pd.read_csv("out/coverage.csv", keep_default_na=False)
    assert {"linear", "activation", "normalisation", "sum"} <= set(coverage.kind)
    for module in coverage.module[coverage.module != ""]:
        assert module in result.stdout


def test_check_and_evaluate_slopes_between_coalitions(lmd: Lmd, tiny_config: Path):
    names = [f"identity-ratio-{rule}" for rule in ("shapley", "reveal", "rescale")]
    given = ("-c", tiny_config, "--set", f"variants=[{', '.join(names)}]")
    result = lmd("check", *given, "--output", "out")
    assert result.exit_code == 0, result.output
    checks = pd.read_csv("out/checks.csv").set_index("name")
    for name in names:
        for what in (f"{name}, float32", f"{name}, float64", f"eq. 14, {name}"):
            assert checks.status[[row for row in checks.index if what in row]].eq("ok").all()
            assert any(what in row for row in checks.index)
    result = lmd("evaluate", *given, "--limit", 1, "--output", "run")
    assert result.exit_code == 0, result.output
    cells = pd.read_csv("run/metrics.csv")
    assert set(cells.variant) == set(names)
    assert cells.mse_mean[cells.expected == "keep"].max() == 0.0
    assert all(name in result.stdout for name in names)


def test_check_counts_missing_files_and_goes_on(lmd: Lmd, tiny_config: Path, own_root: Path):
    for path in sorted((own_root / "samples" / "CAM_BACK").iterdir())[:2]:
        path.unlink()
    result = lmd("check", "-c", tiny_config, "--dataroot", own_root, "--output", "out")
    assert result.exit_code == 1
    checks = pd.read_csv("out/checks.csv").set_index("name")
    assert checks.status["data files"] == "FAIL"
    assert "CAM_BACK 2" in checks.detail["data files"]
    assert checks.status["checkpoint"] == "note"  # what does not depend on it is still checked


def test_check_reports_what_would_stop_a_run(lmd: Lmd, tiny_config: Path):
    result = lmd("check", "-c", tiny_config, "--checkpoint", "nope.pth", "--device", "cuda:99")
    assert result.exit_code == 1
    failed = [line for line in result.stdout.splitlines() if "FAIL" in line]
    assert len(failed) == 2
    assert "cuda:99 is not there" in failed[0]
    assert "nope.pth does not exist" in failed[1]
    result = lmd("check", "-c", tiny_config, "--dataroot", "nowhere")
    assert result.exit_code == 1
    assert "data root nowhere not found" in result.stdout


def test_check_notes_what_evaluate_would_refuse(lmd: Lmd, tiny_config: Path):
    result = lmd("check", "-c", tiny_config, "--set", "perturbation.count=12")
    assert result.exit_code == 0
    assert "lmd evaluate cannot run: perturbation.count is 12" in result.stdout


def test_check_fails_if_the_network_does_not_conserve(lmd: Lmd, tiny_config: Path, monkeypatch):
    from lmd_cli.workflows import check as preflight

    monkeypatch.setitem(preflight.OPERATION, torch.float64, 1e-20)
    monkeypatch.setattr(preflight, "DOUBLE", replace(preflight.DOUBLE, replay=-1.0))
    result = lmd("check", "-c", tiny_config)
    assert result.exit_code == 1
    assert sum("FAIL" in line for line in result.stdout.splitlines()) == 4


def test_synthesize_writes_a_root_that_other_commands_read(lmd: Lmd, tiny_config: Path):
    size = ["--height", 64, "--width", 112]
    result = lmd("synthesize", "--output", "world", "--scenes", 3, "--samples", 1, *size)
    assert result.exit_code == 0, result.output
    assert "synthetic nuScenes root: " in result.stdout
    root = Path("world").resolve()
    assert result.stdout.splitlines()[-1] == (
        f"results: {root}; next: lmd check --config demo.yaml --dataroot {root}"
    )
    assert re.search(r"writing world: 3/3, .* in all\n", result.stderr)
    train = ["--set", "data.split=mini_train"]
    listed = lmd("samples", "-c", tiny_config, "--dataroot", "world", *train)
    assert len(listed.stdout.splitlines()) == 1


def test_layers_and_objects_are_what_gradcam_takes(lmd: Lmd, tiny_config: Path):
    token = lmd("samples", "-c", tiny_config).stdout.splitlines()[1].split()[1]
    which = ("-c", tiny_config, "--sample-token", token)
    listed = [line.split() for line in lmd("layers", *which).stdout.splitlines() if " x " in line]
    layers = {words[0]: words[2:] for words in listed[1:]}
    assert layers["decoder.bn1"] == ["8", "x", "12", "x", "12"]
    objects = [line.split() for line in lmd("objects", *which).stdout.splitlines()]
    near = next(words for words in objects if words and words[-1] == "yes")
    assert near[1].startswith("vehicle.")
    asked = ("--layer", "decoder.bn1", "--object", near[0])
    assert lmd("gradcam", *which, *asked, "--output", "out").exit_code == 0
    assert lmd("objects", "-c", tiny_config, "--sample-token", "x").exit_code == 2


def test_check_ends_with_a_verdict(lmd: Lmd, tiny_config: Path):
    result = lmd("check", "-c", tiny_config, "--dataroot", "nowhere", "--checkpoint", "nope.pth")
    assert result.stdout.splitlines()[-1] == "verdict: a run would fail: data, checkpoint"


def test_samples_by_scene_token_and_weather(lmd: Lmd, tiny_config: Path):
    every = [line.split() for line in lmd("samples", "-c", tiny_config).stdout.splitlines()]
    in_scene = lmd("samples", "-c", tiny_config, "--scene", "scene-0916").stdout.splitlines()
    assert [line.split()[1] for line in in_scene] == [t for _, t, s in every if s == "scene-0916"]
    Path("list.txt").write_text(f"{every[4][1]}\n\n{every[1][1]}\n")
    chosen = lmd("samples", "-c", tiny_config, "--tokens", "list.txt").stdout.splitlines()
    assert [line.split()[1] for line in chosen] == [every[1][1], every[4][1]]
    result = lmd("samples", "-c", tiny_config, "--scene", "scene-0915")
    assert result.exit_code == 2
    assert "scene-0915 is not among the split's; did you mean scene-0916?" in result.stderr
    assert lmd("samples", "-c", tiny_config, "--tokens", "none.txt").exit_code == 2
    dark, light = (lmd("samples", "-c", tiny_config, flag) for flag in ("--night", "--day"))
    assert len(dark.stdout.splitlines()) + len(light.stdout.splitlines()) == 6
    result = lmd("decompose", "-c", tiny_config, "--tokens", "list.txt", "--output", "out")
    assert f"sample {every[1][1]}" in result.stdout
    assert result.stdout.splitlines()[-1].endswith(f"--config {tiny_config} --tokens list.txt")
