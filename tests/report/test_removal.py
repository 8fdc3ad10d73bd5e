"""Removal: what the survey says of zeroed features, against the networks themselves."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from lmd_cli.config.loading import load_config
from lmd_cli.data import collate
from lmd_cli.evaluation.ground.decisive import SEVERAL, TOGETHER
from lmd_cli.evaluation.ground.plane import plane_of
from lmd_cli.evaluation.ground.removal import (
    lost_without,
    removal_fields,
    removal_verdict,
    removals,
)
from lmd_cli.evaluation.ground.vehicles import object_fields, outline
from lmd_cli.report.page.build import build_page
from lmd_cli.results.read_run import read_run
from lmd_cli.results.survey import Survey, sample_fields
from lmd_cli.workflows.evaluate import evaluate
from lmd_cli.workflows.ready import Ready, make_ready
from lmd_cli.workflows.report import ReportOptions, make_report, partner_of
from lmd_cli.workflows.survey import survey
from tests.support import made_up
from tests.support.tiny_settings import crn_config

PAIR = ("camera", "radar")
CUTS = {"camera": ["camera"], "radar": ["radar"], "camera+radar": ["camera", "radar"]}


def zeroed(tree: Any) -> Any:
    """A tree of tensors, all zero."""
    if isinstance(tree, torch.Tensor):
        return torch.zeros_like(tree)
    if isinstance(tree, Mapping):
        return {name: zeroed(leaf) for name, leaf in tree.items()}
    return [zeroed(leaf) for leaf in tree]


def output_without(ready: Ready, index: int, cut: Sequence[str]) -> np.ndarray:
    """The plain network's output map (rows, columns), forward up: no part of the program's own."""
    network, name = ready.built.network, ready.config.model.output
    batch = collate([ready.dataset[index]])
    with torch.no_grad():
        features = dict(network.encode(batch))
        constants = network.constants(batch) if hasattr(network, "constants") else {}
        for sensor in cut:
            features[sensor] = zeroed(features[sensor])
        output = network.fuse(features, outputs=[name], **constants)[name]
    turn = getattr(network, "forward_up", lambda maps: maps)
    return turn(output[0, 0]).numpy()


def rows_by_token(made: Survey) -> dict[str, dict[str, Any]]:
    header = object_fields(made.parts)
    rows = (dict(zip(header, row, strict=True)) for row in made.objects)
    return {row["token"]: row for row in rows}


def false_alarms(above: np.ndarray, masks: Iterable[np.ndarray], least: int) -> list[np.ndarray]:
    """Touching cells without a vehicle's, found by another library than the program's."""
    labels, count = ndimage.label(above, structure=np.ones((3, 3)))
    groups = [labels == n for n in range(1, count + 1)]
    vehicles = np.any([np.zeros_like(above), *masks], axis=0)
    return [g for g in groups if g.sum() >= least and not (g & vehicles).any()]


def overlap(ready: Ready, index: int, logits: np.ndarray) -> tuple[int, int] | tuple[None, None]:
    """Intersection and union with the sample's segmentation; of heatmaps there is none."""
    tensors = ready.dataset[index].tensors
    if "segmentation" not in tensors:
        return None, None
    counts = np.squeeze(tensors["valid"].numpy()) == 1
    truth = np.squeeze(tensors["segmentation"].numpy()) == 1
    predicted = (1 / (1 + np.exp(-logits.astype(np.float64)))) > 0.5
    both, any_ = predicted & truth & counts, (predicted | truth) & counts
    return int(both.sum()), int(any_.sum())


def ious(row: Mapping[str, Any], end: str) -> tuple[Any, Any]:
    return row[f"intersection{end}"], row[f"union{end}"]


@pytest.fixture(scope="module", params=["simplebev", "crn"])
def ready(request: pytest.FixtureRequest, tiny_config: Path, tiny_root: Path, tmp_path_factory):
    if request.param == "simplebev":
        return make_ready(load_config(str(tiny_config)))
    return make_ready(load_config(str(crn_config(tmp_path_factory.mktemp("crn"), tiny_root))))


def test_removal_is_what_the_network_says_with_zeroed_features(ready: Ready):
    plane, index = plane_of(ready.config), 1
    # A threshold among the scores, so that random weights detect some vehicles and miss others.
    maps = {key: output_without(ready, index, cut) for key, cut in {"": [], **CUTS}.items()}
    peak = ready.config.model.output.startswith("heatmap")
    boxes = ready.dataset.boxes_on_map(index)
    masks = {box.token: plane.mask(outline(box)) for box in boxes}
    scores = {
        token: {k: float(m[mask].max() if peak else m[mask].mean()) for k, m in maps.items()}
        for token, mask in masks.items()
        if mask.any()
    }
    middle = float(np.median([value for by_cut in scores.values() for value in by_cut.values()]))
    config = ready.config.model_copy(update={"detection": 1 / (1 + np.exp(-middle))})
    changed = replace(ready, config=config)
    actual = survey(changed, [ready.dataset.tokens[index]], plane, viewer=1)
    rows = rows_by_token(actual)
    assert len(scores) >= 3
    for token, by_cut in scores.items():
        row = rows[token]
        assert row["score"] == pytest.approx(by_cut[""], rel=1e-4, abs=1e-5)
        for cut in CUTS:
            assert row[f"score_without_{cut}"] == pytest.approx(by_cut[cut], rel=1e-4, abs=1e-5)
            if abs(by_cut[cut] - middle) > 1e-4:
                assert row[f"detected_without_{cut}"] == int(by_cut[cut] > middle)
    verdicts = {
        row[f"detected_without_{cut}"] for row in rows.values() for cut in CUTS if row["inside"]
    }
    assert verdicts == {0, 1}
    change = dict(zip(sample_fields(actual.parts), actual.samples[0], strict=True))
    false = {
        key: false_alarms(m > middle, masks.values(), 1 if peak else 4) for key, m in maps.items()
    }
    for cut in CUTS:
        new = [group for group in false[cut] if not any((group & old).any() for old in false[""])]
        assert change[f"false_without_{cut}"] == len(false[cut])
        assert change[f"new_false_without_{cut}"] == len(new)
        assert ious(change, f"_without_{cut}") == overlap(ready, index, maps[cut])
    assert change["false"] == len(false[""])
    assert ious(change, "") == overlap(ready, index, maps[""])
    kind = "false" if peak else "new_false"  # heatmaps of random weights have few peaks
    assert sum(change[f"{kind}_without_{cut}"] for cut in CUTS)
    for cut in CUTS:
        expected = np.linalg.norm(maps[cut] - maps[""]) / np.linalg.norm(maps[""])
        assert change[f"change_without_{cut}"] == pytest.approx(expected, rel=1e-3)


def test_features_can_be_replaced_by_those_of_another_sample(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
):
    """Against the plain network with another sample's features; each sample is encoded once."""
    network, (index, other) = ready.built.network, (1, 2)
    batches = [collate([ready.dataset[i]]) for i in (index, other)]
    name = ready.config.model.output
    turn = getattr(network, "forward_up", lambda maps: maps)
    with torch.no_grad():
        mine, theirs = (dict(network.encode(batch)) for batch in batches)
        constants = network.constants(batches[0]) if hasattr(network, "constants") else {}
        expected = {
            cut: turn(
                network.fuse({**mine, **{s: theirs[s] for s in cut}}, outputs=[name], **constants)[
                    name
                ][0, 0]
            ).numpy()
            for cut in [(), *removals(PAIR)]
        }
    plain, encoded = network.encode, []
    monkeypatch.setattr(network, "encode", lambda batch: encoded.append(1) or plain(batch))
    tokens = [ready.dataset.tokens[i] for i in (index, other)]
    replaced = survey(ready, tokens, plane_of(ready.config), viewer=1, partner=lambda i: i + 1)
    assert replaced.removal == "replaced"
    assert len(encoded) == 3
    change = dict(zip(sample_fields(replaced.parts), replaced.samples[0], strict=True))
    for cut in removals(PAIR):
        wanted = np.linalg.norm(expected[cut] - expected[()]) / np.linalg.norm(expected[()])
        assert change[f"change_without_{'+'.join(cut)}"] == pytest.approx(wanted, rel=1e-3)


def test_a_partner_is_the_first_of_the_schedule_that_could_be_read(tmp_path: Path):
    run = read_run(made_up.run_folder(tmp_path / "run"))
    run.record["schedule"] = {"stride": 2, "count": 2}
    tokens = [f"t{i}" for i in range(5)]
    assert [partner_of(run, tokens)(i) for i in range(5)] == [2, 3, 4, 0, 1]
    run.record["missing_partners"] = ["t2"]
    assert partner_of(run, tokens)(0) == 4


def test_a_page_of_replaced_features_says_so(tmp_path: Path):
    run, made = read_run(made_up.run_folder(tmp_path / "run")), made_up.survey()
    made.removal = "replaced"
    text = " ".join(build_page(run, made).decode().split())
    assert (
        "If a sensor shows another scene (features replaced by those of another sample), it" in text
    )
    assert "it loses 0 (0 %) without the camera and 1 (50 %" in text
    assert "features replaced by those of another sample" in text
    assert "set to zero" not in text
    assert "detected with every sensor&#39;s features replaced" in text


def test_there_are_as_many_more_passes_as_subsets(ready: Ready, monkeypatch: pytest.MonkeyPatch):
    network, calls = ready.built.network, Counter()
    for name in ("encode", "fuse"):
        plain = getattr(network, name)

        def counted(*given: Any, _plain: Any = plain, _name: str = name, **named: Any) -> Any:
            calls[_name] += 1
            return _plain(*given, **named)

        monkeypatch.setattr(network, name, counted)
    ready.decompose(0)
    decomposing = calls.copy()
    survey(ready, [ready.dataset.tokens[0]], plane_of(ready.config), viewer=1)
    surveying = calls - decomposing
    assert surveying["encode"] == decomposing["encode"] == 1
    assert surveying["fuse"] - decomposing["fuse"] == 3  # 2^2 - 1


def test_what_is_missed_cannot_be_lost():
    without = {"detected_without_camera": 0, "detected_without_radar": 1}
    assert lost_without({"detected": 1, **without}, PAIR) == ["camera"]
    assert lost_without({"detected": 0, **without}, PAIR) == []


def test_subsets_of_many_sensors():
    assert removals(PAIR) == [("camera",), ("radar",), ("camera", "radar")]
    assert [len(removals("abcdefgh"[:count])) for count in (1, 3, 6, 7)] == [1, 7, 63, 15]
    assert removal_fields(["a"]) == (
        *("detected", "score", "enough_by_removal", "detected_without_a", "score_without_a"),
    )


@pytest.mark.parametrize(
    ("without_camera", "without_radar", "expected"),
    [(0, 1, "camera"), (1, 0, "radar"), (1, 1, SEVERAL), (0, 0, TOGETHER), (None, 1, "")],
)
def test_verdicts(without_camera: int | None, without_radar: int | None, expected: str):
    actual = {(): 1, ("camera",): without_camera, ("radar",): without_radar, PAIR: 0}
    assert removal_verdict(actual, PAIR) == expected
    assert removal_verdict({**actual, (): 0}, PAIR) == ""


OWN = """
import torch
from torch import nn


class Net(nn.Module):
    modalities = ("left", "right")

    def encode(self, batch):
        return {name: batch[name] for name in self.modalities}

    def fuse(self, features):
        both = torch.cat([3 * features["left"], features["right"]], 1)
        return {"sum": both, "quotient": both / features["right"].abs().sum()}


class Data:
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return {"left": torch.full((2,), 1.0 + i), "right": torch.full((2,), 4.0)}
"""


@pytest.mark.parametrize("output", ["sum", "quotient"])
def test_a_network_of_ones_own(tmp_path: Path, output: str):
    (tmp_path / "removed.py").write_text(OWN)
    path = tmp_path / "removed.yaml"
    path.write_text(
        f"model: {{target: 'removed:Net', modalities: [left, right], output: {output}}}\n"
        "data: {target: 'removed:Data'}\nperturbation: {count: 1}\nthreads: 1\n"
    )
    evaluate(load_config(str(path)), tmp_path / "run")
    page = make_report(tmp_path / "run", options=ReportOptions(trust=True)).read_text()
    rows = list(csv.DictReader((tmp_path / "run" / "survey" / "samples.csv").open()))
    for i, row in enumerate(rows):
        left, right = 3 * (1 + i), 4
        norm = np.hypot(left, right)
        assert float(row["change_without_left"]) == pytest.approx(left / norm, rel=1e-6)
        if output == "sum":
            assert float(row["change_without_right"]) == pytest.approx(right / norm, rel=1e-6)
            assert float(row["change_without_left+right"]) == 1
        else:  # no finite number: not known
            assert row["change_without_right"] == row["change_without_left+right"] == ""
    assert "What if a modality is missing?" in page
    assert 'id="changes"' in page
    assert 'id="fails"' not in page
