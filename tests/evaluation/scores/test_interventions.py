"""Interventions on objects: oracles of what a removal does, and scores against it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lmd_cli.config.loading import load_config
from lmd_cli.data import Removed
from lmd_cli.errors import ContractError, MethodError
from lmd_cli.evaluation.ground.footprints import FootprintMeans
from lmd_cli.evaluation.scores.against_ground_truth import Score, Vehicle
from lmd_cli.evaluation.scores.against_interventions import (
    agreement,
    carrier,
    counted,
    decisive,
    intervention_scores,
    seen_by_all,
)
from lmd_cli.evaluation.scores.interventions import Effect, measured
from lmd_cli.workflows.score import score

#: Both modalities see both lesions; the network reads the left one in a and the right one in b.
MODULE = """
import torch
from torch import nn

from lmd_cli.data import Region

LEFT, RIGHT = torch.zeros(6, 8, dtype=torch.bool), torch.zeros(6, 8, dtype=torch.bool)
LEFT[1:4, 1:3], RIGHT[2:5, 5:7] = True, True
SIDES = (torch.arange(8) < 4).float(), (torch.arange(8) >= 4).float()


class Scans:
    def __len__(self):
        return 6

    def __getitem__(self, i):
        noise = torch.Generator().manual_seed(i)
        strength = 1 + torch.rand(2, 2, generator=noise)
        both = LEFT * strength[:, :1, None] + RIGHT * strength[:, 1:, None]
        return {"a": both[:1], "b": both[1:]}

    def regions(self, i):
        return [Region(f"left-{i}", LEFT), Region(f"right-{i}", RIGHT)]


class Removing(Scans):
    def __init__(self, fault=""):
        self.fault = fault

    def remove(self, i, object, modality):
        if self.fault == "raises":
            raise RuntimeError("no such lesion")
        if self.fault == "none":
            return None
        if self.fault == "keeps":
            return self[i]
        item = self[i]
        if self.fault == "tensor":
            return item[modality]
        item[modality] = item[modality].masked_fill(object.mask, 0.0)
        if self.fault == "reaches":
            item["b"] = item["b"] + 1
        return item


class Net(nn.Module):
    modalities = ("a", "b")

    def __init__(self, only=""):
        super().__init__()
        self.only = only

    def encode(self, batch):
        return dict(batch)

    def fuse(self, features):
        left, right = SIDES
        if self.only:
            return {"lesion": features[self.only] - 0.1}
        return {"lesion": features["a"] * left + features["b"] * right - 0.1}
"""
METHODS = ("lmd", "leave-one-out", "shapley", "gradient-x-input")


@pytest.fixture
def config(tmp_path: Path) -> Any:
    (tmp_path / "lesions.py").write_text(MODULE)
    path = tmp_path / "lesions.yaml"
    path.write_text(
        "model: {target: 'lesions:Net', modalities: [a, b], output: lesion}\n"
        "data: {target: 'lesions:Removing'}\nthreads: 1\n"
    )
    return lambda *settings: load_config(path, settings)


def by_name(scores: list[Score]) -> dict[tuple[str, str], Any]:
    return {(s.name, s.modality): s.interval.estimate for s in scores}


def test_who_reads_one_sensor_at_each_place_is_scored_one(config: Any, tmp_path: Path) -> None:
    summary = score(config(), tmp_path / "out", METHODS, resamples=20)
    assert len(summary.scores) == len(METHODS)
    for scores in summary.scores.values():
        values = by_name(scores)
        assert values["auroc_intervention", "a"] == 1.0
        assert values["auroc_lost", "a"] == 1.0
        assert values["rank_correlation_intervention", "a"] == pytest.approx(1.0)
        assert values["rank_correlation_intervention", "b"] == pytest.approx(1.0)
        assert ("auroc_all", "a") not in values  # nobody recorded who sees what
    rows = pd.read_csv(tmp_path / "out" / "interventions.csv").set_index("annotation_token")
    for i in range(6):
        left, right = (rows.loc[f"{side}-{i}"].set_index("modality") for side in ("left", "right"))
        for own, other, lesion in (("a", "b", left), ("b", "a", right)):
            assert lesion["drop"][own] == pytest.approx(lesion.before[own] + 0.1, abs=1e-6)
            assert lesion["drop"][own] == pytest.approx(lesion.inside[own], abs=1e-6)
            assert (lesion.lost[own], lesion["drop"][other], lesion.lost[other]) == (1, 0, 0)
            assert lesion.outside.tolist() == lesion.elsewhere.tolist() == [0, 0]
    (note,) = [line for line in summary.notes if line.startswith("Interventions")]
    assert "12 of 12 are detected, 12 of these have evidence in every sensor" in note
    assert "Lost without: a 6, b 6." in note


@pytest.mark.parametrize("fault", ["none", "keeps"])
def test_a_remove_that_changes_nothing_says_so(config: Any, tmp_path: Path, fault: str) -> None:
    settings = config(f"data.options.fault={fault}")
    summary = score(settings, tmp_path / "out", ("lmd",), resamples=20)
    assert any("a holds nothing of 12 detected (first: left-0)." in x for x in summary.notes)
    assert any("12 of 12 are detected, 0 of these have evidence" in x for x in summary.notes)
    rows = pd.read_csv(tmp_path / "out" / "interventions.csv")
    assert (rows.removed == 0).all()
    assert (rows["drop"] == 0).all()


def test_who_reads_one_sensor_only_is_carried_by_it(config: Any, tmp_path: Path) -> None:
    summary = score(config("model.options.only=b"), tmp_path / "out", ("lmd",), resamples=20)
    rows = pd.read_csv(tmp_path / "out" / "interventions.csv")
    assert (rows[rows.modality == "a"]["drop"] == 0).all()
    assert (rows[rows.modality == "b"].lost == 1).all()
    values = {(s.name, s.modality): s for s in summary.scores["lmd:identity-ratio"]}
    assert values["rank_correlation_intervention", "b"].interval.estimate == pytest.approx(1.0)
    undefined = values["auroc_intervention", "a"].interval
    assert undefined.estimate != undefined.estimate  # b carries all: there is nothing to tell apart


def test_both_truths_agree_where_regions_have_evidence(config: Any, tmp_path: Path) -> None:
    path = tmp_path / "lesions.py"
    evidence = '{"a": float(side == "left"), "b": float(side == "right")}'
    path.write_text(
        MODULE.replace(
            '[Region(f"left-{i}", LEFT), Region(f"right-{i}", RIGHT)]',
            '[Region(f"{side}-{i}", mask, ' + evidence + ")"
            ' for side, mask in (("left", LEFT), ("right", RIGHT))]',
        )
    )
    summary = score(config(), tmp_path / "out", ("lmd",), resamples=20, truth="both")
    names = [s.name for s in summary.scores["lmd:identity-ratio"]]
    assert {"auroc_all", "auroc_intervention", "bias_share"} <= set(names)
    agreed = pd.read_csv(tmp_path / "out" / "agreement.csv")
    assert agreed.agreement.tolist() == ["same_sensor", "rank_correlation", "rank_correlation"]
    assert agreed.estimate[0] == 1.0
    assert (agreed.estimate > 0.8).all()
    assert any(line.startswith("Both truths: of 12 detected") for line in summary.notes)
    recorded = score(config(), tmp_path / "default", ("lmd",), resamples=20)
    assert not (tmp_path / "default" / "interventions.csv").exists()
    assert "auroc_intervention" not in {s.name for s in recorded.scores["lmd:identity-ratio"]}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raises", "remove of left-0 from a in item 0"),
        ("tensor", "remove of left-0 from a in item 0 is a Tensor; expected a dict of tensors"),
        ("reaches", "with an object taken out of a has other features of b as well: remove(index"),
    ],
)
def test_a_remove_that_does_not_fit(config: Any, tmp_path: Path, fault: str, said: str) -> None:
    with pytest.raises(ContractError) as caught:
        score(config(f"data.options.fault={fault}"), tmp_path / "out", ("lmd",))
    assert said in str(caught.value)


def test_objects_of_which_a_modality_holds_nothing_are_named(config: Any, tmp_path: Path) -> None:
    summary = score(config("data.options.fault=none"), tmp_path / "out", ("lmd",), resamples=5)
    assert "a holds nothing of 12 detected (first: left-0)." in summary.notes
    assert "0 of these have evidence in every sensor" in " ".join(summary.notes)


def test_the_configs_threshold_says_what_is_detected_and_lost(config: Any, tmp_path: Path) -> None:
    """Lesions give logits of 0.9 to 1.9: some above 1.386, a probability of 0.8."""
    summary = score(config("detection=0.8"), tmp_path / "out", ("lmd",), resamples=5)
    rows = pd.read_csv(tmp_path / "out" / "interventions.csv")
    assert 0 < rows.annotation_token.nunique() < 12
    assert (rows.before > math.log(4)).all()
    assert (rows.lost == (rows.after <= math.log(4))).all()
    assert f"{rows.annotation_token.nunique()} of 12 are detected" in " ".join(summary.notes)


def test_a_data_set_without_remove(config: Any, tmp_path: Path) -> None:
    scans = config("data.target=lesions:Scans")
    with pytest.raises(MethodError, match=r"does not say how: give its data set a method remove"):
        score(scans, tmp_path / "out", ("lmd",), truth="intervention")


def test_an_interrupted_run_ends_with_the_same_bytes(config: Any, tmp_path: Path) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    score(config(), whole, ("lmd",), resamples=20)
    score(config(), again, ("lmd",), resamples=20, limit=2)
    score(config(), again, ("lmd",), resamples=20)
    for name in ("interventions.csv", "score.csv", "vehicles.csv"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()


# -- measures -----------------------------------------------------------------------------


def effect(drop: float, amount: int = 1, lost: bool = False) -> Effect:
    return Effect(amount, 0, 1.0, 1.0 - drop, lost)


def test_what_a_removal_did_is_measured_inside_and_outside() -> None:
    weights = torch.zeros(2, 3, 4)
    weights[0, 0, :2], weights[1, 2, 3] = 0.5, 1.0
    total, changed = torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4)
    changed[0, 0, 0, 0], changed[0, 0, 2, 3], changed[0, 0, 1, 0] = -4.0, 2.0, 1.0
    removed: Any = Removed(None, 7, 1)  # type: ignore[arg-type]
    one = measured(total, changed, FootprintMeans(weights), 0, removed, True)
    assert (one.amount, one.clipped, one.lost) == (7, 1, True)
    assert (one.before, one.after, one.drop) == (0.0, -2.0, 2.0)
    assert (one.inside, one.elsewhere) == (2.0, 2.0)
    assert one.outside == pytest.approx(3 / 10)
    assert one.outside_share == pytest.approx(3 / 7)


def test_who_carries_and_who_decides() -> None:
    assert carrier({"a": effect(1.0), "b": effect(2.0)}) == "b"
    assert carrier({"a": effect(-1.0), "b": effect(0.0)}) is None
    assert decisive({"a": effect(1.0, lost=True), "b": effect(2.0)}) == "a"
    assert decisive({"a": effect(1.0, lost=True), "b": effect(2.0, lost=True)}) is None
    assert not seen_by_all({"a": effect(1.0), "b": effect(0.0, amount=0)})


def test_three_modalities_are_each_set_against_the_others() -> None:
    names = ("a", "b", "c")
    shares = [{n: float(n == own) for n in names} for own in "abcabc"]
    vehicles = [Vehicle(f"{i}", f"{i}", x, True, {**x, "bias": 0.0}) for i, x in enumerate(shares)]
    effects = {
        v.token: {n: effect(3 * v.parts[n], lost=v.parts[n] > 0) for n in names} for v in vehicles
    }
    effects["5"] = {**effects["5"], "a": effect(0.0, amount=0)}  # not seen by all: left out
    scores = intervention_scores(vehicles, effects, names)
    values = by_name(scores)
    assert [values["auroc_intervention", n] for n in names] == [1.0] * 3
    assert [values["auroc_lost", n] for n in names] == [1.0] * 3
    assert {s.vehicles for s in scores} == {5}
    counts = counted(9, effects, names)
    assert (counts.vehicles, counts.detected, counts.scored) == (9, 6, 5)
    assert counts.lost == {"a": 2, "b": 2, "c": 1}
    assert counts.unseen == {"a": 1, "b": 0, "c": 0}
    assert counts.first_unseen == {"a": "5"}
    assert by_name(agreement(vehicles, effects, names))["same_sensor", ""] == 1.0
