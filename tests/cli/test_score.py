"""``lmd score`` on the tiny root, with random weights."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lmd_cli.assembly.build import build_dataset
from lmd_cli.config.loading import load_config
from lmd_cli.data.simplebev.truth import footprint_mask
from lmd_cli.workflows.decompose import decompose_sample
from lmd_cli.workflows.score import DEFAULT_METHODS
from tests.support.calling import Lmd


@pytest.fixture(scope="module")
def run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    from lmd_cli.cli.app import app

    folder = tmp_path_factory.mktemp("score")
    arguments = ["score", "-c", str(tiny_config), "--output", str(folder), "--resamples", "50"]
    arguments += ["--limit", "5"]  # of 6, the last that a test looks at
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "\nRandom weights: no verdict on which method to trust.\n" in result.stdout
    assert "favours methods that remove a sensor" in " ".join(result.stdout.split())
    last = result.stdout.splitlines()[-1]
    assert last == f"results: {folder}; next: lmd sanity --config {tiny_config}"
    assert re.search(r"score: 5/5, .* in all, \d+% waiting for data", result.stderr)
    (folder / "stdout.txt").write_text(result.stdout)
    return folder


def test_every_method_is_scored(run: Path) -> None:
    scores = pd.read_csv(run / "score.csv")
    assert set(scores.score) == {"auroc_all", "auroc_detected", "rank_correlation", "bias_share"}
    methods = scores.method.unique().tolist()
    assert [name.partition(":")[0] for name in methods] == [
        name.partition(":")[0] for name in DEFAULT_METHODS
    ]
    record = json.loads((run / "run.json").read_text())
    assert record["methods"] == methods
    assert record["left_out"] == {}
    assert record["verdict"] == {"reason": "Random weights", "best": None}
    (missed,) = record["missed_by_steps"].items()
    assert missed[0] == "integrated-gradients"
    assert f"{missed[0]}: its steps miss {missed[1]:.1%} of F(x) - F(0)" in " ".join(
        (run / "stdout.txt").read_text().split()
    )
    assert (record["scored"], record["samples"]["count"]) == (5, 6)
    assert record["status"] == "finished"
    times = pd.read_csv(run / "times.csv")
    assert times.method.tolist() == methods
    assert (times.seconds_per_sample > 0).all()
    with Image.open(run / "score.png") as picture:
        assert picture.width > 1000
    printed = (run / "stdout.txt").read_text()
    rows = list(csv.DictReader((run / "vehicles.csv").read_text().splitlines()))
    annotations = {row["annotation_token"] for row in rows}
    instances = {row["instance_token"] for row in rows}
    said = (
        f"{len(annotations)} annotations of {len(instances)} vehicles; intervals resample vehicles."
    )
    assert said in " ".join(printed.split())
    assert all(name in printed for name in methods)


def test_its_folder_is_no_run_to_report(run: Path, lmd: Lmd) -> None:
    result = lmd("report", run)
    assert result.exit_code == 2
    assert f"{run} is a run of lmd score; give the folder that lmd evaluate wrote" in result.stderr


def test_shares_sum_to_the_mean_logit(run: Path) -> None:
    vehicles = pd.read_csv(run / "vehicles.csv")
    sums = vehicles.camera + vehicles.radar + vehicles.bias
    totals = sums.to_numpy().reshape(len(DEFAULT_METHODS), -1)
    np.testing.assert_allclose(totals, np.broadcast_to(totals[:1], totals.shape), atol=1e-4)


def test_a_vehicles_parts_are_means_over_its_footprint(run: Path, tiny_config: Path) -> None:
    """Against the parts that ``lmd decompose`` writes."""
    config = load_config(str(tiny_config), [])
    dataset = build_dataset(config)
    vehicles = pd.read_csv(run / "vehicles.csv")
    rows = vehicles[vehicles.method == "lmd:identity-ratio"].set_index("annotation_token")
    shown = 0
    for index in (0, 4):
        actual = decompose_sample(config, dataset.tokens[index], variant="identity-ratio")
        for box in dataset.boxes(index):
            mask = footprint_mask(box, dataset.grid)
            if box.visibility == 1 or not mask.any():
                assert box.token not in rows.index
                continue
            for name in ("camera", "radar", "bias"):
                wanted = actual.parts[name].numpy()[mask].mean()
                assert rows.loc[box.token, name] == pytest.approx(wanted, abs=1e-4)
            shown += 1
    assert shown > 5


def test_evidence_is_the_side_tables(run: Path, tiny_root: Path) -> None:
    tables = tiny_root / "v1.0-mini"
    evidence = json.loads((tables / "synthetic_evidence.json").read_text())
    annotations = json.loads((tables / "sample_annotation.json").read_text())
    objects = {row["token"]: row["instance_token"] for row in annotations}
    vehicles = pd.read_csv(run / "vehicles.csv")
    assert len(vehicles) > 100
    for row in vehicles.itertuples():
        known = evidence[row.annotation_token]
        assert (row.seen_by_camera, row.seen_by_radar) == (known["camera"], known["radar"])
        assert row.visible_pixels == known["visible_pixels"]
        assert row.radar_returns == known["radar_returns"]
        assert row.instance_token == objects[row.annotation_token]


def test_the_same_run_gives_the_same_bytes(run: Path, lmd: Lmd, tiny_config: Path) -> None:
    names = ["lmd:identity-ratio", "shapley"]
    arguments = [part for name in names for part in ("--method", name)]
    result = lmd(
        "score", "-c", tiny_config, *arguments, "--resamples", 50, "--limit", 5, "--output", "again"
    )
    assert result.exit_code == 0, result.output
    whole, again = (
        pd.read_csv(run / "score.csv", dtype=str),
        pd.read_csv("again/score.csv", dtype=str),
    )
    pd.testing.assert_frame_equal(again, whole[whole.method.isin(names)].reset_index(drop=True))


def test_limit_takes_the_first_samples(lmd: Lmd, tiny_config: Path) -> None:
    result = lmd("score", "-c", tiny_config, "--method", "leave-one-out", "--limit", 2)
    assert result.exit_code == 0, result.output
    record = json.loads(Path("results/tiny/score/run.json").read_text())
    assert record["scored"] == 2


def refused(lmd: Lmd, *arguments: object) -> str:
    result = lmd("score", *arguments)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_a_number_of_threads_that_is_left_open_is_noted(
    lmd: Lmd, tiny_config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    how = ["-c", tiny_config, "--limit", 1, "--method", "gradient-x-input", "--resamples", 5]
    for value, noted in (("null", True), ("1", False)):
        caplog.clear()
        result = lmd("score", *how, "--output", f"score-{value}", "--set", f"threads={value}")
        assert result.exit_code == 0, result.output
        assert ("a number that the config leaves open" in caplog.text) == noted


def test_bad_input(lmd: Lmd, tiny_config: Path, own_root: Path) -> None:
    assert "no method 'shaply'; did you mean 'shapley'?" in refused(
        lmd, "-c", tiny_config, "--method", "shaply"
    )
    table = own_root / "v1.0-mini" / "synthetic_evidence.json"
    table.write_text('{"a": {"camera": true}}')
    assert "is damaged" in refused(lmd, "-c", tiny_config, "--dataroot", own_root)
    table.write_text("{}")
    assert "is not in the evidence" in refused(lmd, "-c", tiny_config, "--dataroot", own_root)
    table.unlink()
    assert "known in the synthetic world only" in refused(
        lmd, "-c", tiny_config, "--dataroot", own_root, "--truth", "recorded"
    )
    (own_root / "v1.0-mini" / "sample_annotation.json").write_text("[]")
    assert "has no annotations of split mini_val: nothing can be scored" in refused(
        lmd, "-c", tiny_config, "--dataroot", own_root
    )


# -- interventions ------------------------------------------------------------------------


FAST = ("--method", "lmd", "--method", "leave-one-out", "--resamples", 20)


def test_a_root_without_recorded_truth_is_scored_by_intervention(
    lmd: Lmd, tiny_config: Path, own_root: Path
) -> None:
    (own_root / "v1.0-mini" / "synthetic_evidence.json").unlink()
    arguments = ("score", "-c", tiny_config, "--dataroot", own_root, *FAST, "--limit", 2)
    result = lmd(*arguments, "--output", "out")
    assert result.exit_code == 0, result.output
    scores = pd.read_csv("out/score.csv")
    assert set(scores.score) == {
        *("auroc_intervention", "auroc_lost", "rank_correlation_intervention", "bias_share")
    }
    effects, vehicles = pd.read_csv("out/interventions.csv"), pd.read_csv("out/vehicles.csv")
    detected = vehicles[(vehicles.method == "leave-one-out") & (vehicles.detected == 1)]
    assert len(effects) == 2 * len(detected) > 4
    amounts = effects.pivot(index="annotation_token", columns="modality", values="removed")
    joined = detected.set_index("annotation_token")
    for modality, grade in (("camera", "visible_pixels"), ("radar", "radar_returns")):
        assert (joined[grade] == amounts[modality].loc[joined.index]).all()
        assert (joined[f"seen_by_{modality}"] == (joined[grade] > 0)).all()
    totals = joined[["camera", "radar", "bias"]].sum(axis=1)
    before = effects.drop_duplicates("annotation_token").set_index("annotation_token").before
    np.testing.assert_allclose(totals, before.loc[joined.index], atol=1e-4)
    untouched = effects[effects.removed == 0]
    assert (untouched["drop"] == 0).all()
    assert (effects[effects.removed > 0].inside > 0).any()
    record = json.loads(Path("out/run.json").read_text())
    assert record["rows"]["truth"] == "intervention"
    assert record["rows"]["removal"] == {"margin": 0.5, "fill": "inpaint"}
    printed = " ".join(result.stdout.split())
    every = len(vehicles[vehicles.method == "leave-one-out"])
    assert f"Interventions: {len(detected)} of {every} are detected" in printed
    cut = effects[effects.clipped_images > 0].annotation_token.nunique()
    assert 0 < cut < len(detected)
    assert f"An image's edge cuts {cut}." in printed
    assert "Without camera the output changes by" in printed
    other = lmd(*arguments, "--output", "out", "--fill", "ring")
    assert other.exit_code == 2
    assert "rows.removal.fill: 'inpaint' there, 'ring' here" in other.output


def test_both_truths_side_by_side_and_resumed(lmd: Lmd, tiny_config: Path) -> None:
    arguments = ("score", "-c", tiny_config, *FAST, "--truth", "both", "--fill", "ring")
    result = lmd(*arguments, "--margin", 1, "--limit", 2, "--output", "out")
    assert result.exit_code == 0, result.output
    scores, agreed = pd.read_csv("out/score.csv"), pd.read_csv("out/agreement.csv")
    assert {"auroc_all", "rank_correlation", "auroc_intervention"} <= set(scores.score)
    assert agreed.agreement.tolist() == ["same_sensor", "rank_correlation", "rank_correlation"]
    assert "Both truths: of" in " ".join(result.stdout.split())
    names = ("score.csv", "interventions.csv", "agreement.csv", "vehicles.csv")
    whole = {name: (Path("out") / name).read_bytes() for name in names}
    lines = Path("out/finished.jsonl")
    first, *_ = lines.read_bytes().splitlines(keepends=True)
    lines.write_bytes(first + b'{"sample": "torn')
    again = lmd(*arguments, "--margin", 1, "--limit", 2, "--output", "out")
    assert again.exit_code == 2
    assert "out/finished.jsonl changed after the run ended" in again.stderr
    record = json.loads(Path("out/run.json").read_text())  # as a run that was killed leaves it
    unfinished = {k: v for k, v in record.items() if k not in ("entries", "files")}
    Path("out/run.json").write_text(json.dumps(unfinished | {"status": "unfinished"}))
    again = lmd(*arguments, "--margin", 1, "--limit", 2, "--output", "out")
    assert again.exit_code == 0, again.output
    assert {name: (Path("out") / name).read_bytes() for name in names} == whole


def test_settings_of_interventions_that_do_not_exist(lmd: Lmd, tiny_config: Path) -> None:
    assert "'guess' is not one of" in refused(lmd, "-c", tiny_config, "--truth", "guess")
    assert "'blur' is not one of" in refused(lmd, "-c", tiny_config, "--fill", "blur")
    assert "greater than or equal to 0" in refused(lmd, "-c", tiny_config, "--margin", -1)
    assert "less than or equal to 10" in refused(lmd, "-c", tiny_config, "--margin", "nan")
