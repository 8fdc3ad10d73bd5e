"""Removal: what the survey says of zeroed features, against the networks themselves."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmd_cli.config.loading import load_config
from lmd_cli.data import collate
from lmd_cli.evaluation.ground.decisive import SEVERAL, TOGETHER
from lmd_cli.evaluation.ground.plane import plane_of
from lmd_cli.evaluation.ground.removal import removal_fields, removal_verdict, removals
from lmd_cli.evaluation.ground.vehicles import object_fields, outline
from lmd_cli.evaluation.metrics import bias_share
from lmd_cli.evaluation.scores.against_ground_truth import Vehicle, bias_shares
from lmd_cli.report.page.build import build_page
from lmd_cli.report.page.removal import removal_tables
from lmd_cli.report.page.vehicle_charts import objects_values
from lmd_cli.results.read_run import read_run
from lmd_cli.results.survey import Survey, sample_fields
from lmd_cli.results.survey_files import FORMAT
from lmd_cli.workflows.evaluate import evaluate
from lmd_cli.workflows.ready import Ready, make_ready
from lmd_cli.workflows.report import ReportOptions, make_report
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


def rows_by_token(found: Survey) -> dict[str, dict[str, Any]]:
    header = object_fields(found.parts)
    return {row["token"]: row for row in (dict(zip(header, r, strict=True)) for r in found.objects)}


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
    found = survey(changed, [ready.dataset.tokens[index]], plane, viewer=1)
    rows = rows_by_token(found)
    assert len(scores) >= 3
    for token, by_cut in scores.items():
        row = rows[token]
        assert row["score"] == pytest.approx(by_cut[""], rel=1e-4, abs=1e-5)
        for cut in CUTS:
            assert row[f"score_without_{cut}"] == pytest.approx(by_cut[cut], rel=1e-4, abs=1e-5)
            if abs(by_cut[cut] - middle) > 1e-4:
                assert row[f"detected_without_{cut}"] == int(by_cut[cut] > middle)
    told = {
        row[f"detected_without_{cut}"] for row in rows.values() for cut in CUTS if row["inside"]
    }
    assert told == {0, 1}
    change = dict(zip(sample_fields(found.parts), found.samples[0], strict=True))
    for cut in CUTS:
        expected = np.linalg.norm(maps[cut] - maps[""]) / np.linalg.norm(maps[""])
        assert change[f"change_without_{cut}"] == pytest.approx(expected, rel=1e-3)


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


def test_subsets_of_many_sensors():
    assert removals(PAIR) == [("camera",), ("radar",), ("camera", "radar")]
    assert [len(removals("abcdefgh"[:count])) for count in (1, 3, 6, 7)] == [1, 7, 63, 15]
    assert removal_fields(["a"]) == (
        *("detected", "removal", "score", "detected_without_a", "score_without_a"),
    )


@pytest.mark.parametrize(
    ("without_camera", "without_radar", "expected"),
    [(0, 1, "camera"), (1, 0, "radar"), (1, 1, SEVERAL), (0, 0, TOGETHER), (None, 1, "")],
)
def test_verdicts(without_camera: int | None, without_radar: int | None, expected: str):
    found = {(): 1, ("camera",): without_camera, ("radar",): without_radar, PAIR: 0}
    assert removal_verdict(found, PAIR) == expected
    assert removal_verdict({**found, (): 0}, PAIR) == ""


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
    assert "What if a sensor fails?" in page
    assert 'id="changes"' in page
    assert 'id="fails"' not in page


def texts(table: Any) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_tables_of_the_page():
    found = made_up.survey()
    tables = removal_tables(found, {"t0": 0})
    assert tables is not None
    questions = {row[0]: row[1:] for row in texts(tables["questions"])}
    assert questions == {
        "any of several sensors alone": ["0", "1", "0"],
        "only the camera alone": ["1", "0", "0"],
        "only the radar alone": ["0", "1", "0"],
        "only several sensors together": ["1", "0", "0"],
        "all detected vehicles": ["2", "2", "0"],
    }
    counts = {row[1]: row[0] for row in texts(tables["conclusions"])}
    assert counts == {
        "of 3 annotated vehicles are detected": "2",
        "stay detected without the camera": "2",
        "stay detected without the radar": "1",
        "stay detected whichever one sensor fails": "1",
        "are lost if one certain sensor fails": "1",
        "get two answers": "2",
        "of the 1 missed ones are detected when a sensor is removed": "1",
        "are detected with no sensor": "0",
    }
    assert all(len(row[2]) > 20 and len(row[3]) > 20 for row in texts(tables["conclusions"]))
    (fails,) = (dict(zip(tables["fails"].header, row, strict=True)) for row in tables["fails"].rows)
    assert (fails["show"].sample, fails["lost without"].text) == (0, "radar")
    assert (fails["distance (m)"].text, fails["weather"].text) == ("12", "no rain, day")
    assert (fails["vehicle"].text, fails["score without radar"].text) == ("v0", "-1")
    assert [row[-1] for row in texts(tables["disagree"])] == ["v0", "v1"]
    (gained,) = texts(tables["gained"])
    assert gained[-1] == "v2"
    assert "radar" in gained


def test_lists_say_what_they_leave_out():
    found = made_up.survey()
    header = object_fields(found.parts)
    far = header.index("distance")
    row = list(found.objects[0])
    found.objects = [(*row[:far], float(500 - n), *row[far + 1 :]) for n in range(300)]
    tables = removal_tables(found, {})
    assert tables is not None
    assert tables["fails"].caption.endswith("(the nearest 200 of 300)")
    distances = [float(row[1]) for row in texts(tables["fails"])]
    assert distances == sorted(distances)
    assert (len(distances), distances[0]) == (200, 201)


def test_the_page_says_which_question_it_answers(tmp_path: Path):
    run = read_run(made_up.run_folder(tmp_path / "run"))
    text = build_page(run, made_up.survey()).decode()
    for table in ("questions", "conclusions", "fails", "two_answers", "gained", "changes"):
        assert text.count(f'id="{table}"') == 1
    labels = re.findall(r'data-shows="\w+"[^>]*> ([^<]*)</label>', text)
    assert len(labels) == 4
    assert all(label.endswith(("(removal)", "(parts)")) for label in labels)
    assert "would be enough:" not in text


def test_one_bias_share():
    parts = {"camera": 1.0, "radar": -2.0, "bias": -1.0}
    assert bias_share(parts) == 0.25
    assert bias_share(dict.fromkeys(parts, 0.0)) is None
    assert bias_shares([Vehicle("v", "i", {}, True, parts)]) == [0.25]
    found = made_up.survey()
    values = objects_values(found)
    assert values is not None
    expected = [1 / 3, 2 / 4.5, 3 / 6]  # 2, k / 2 and -1 - k
    assert values["bias"] == pytest.approx(np.mean(expected))


def test_a_large_bias_share_is_pointed_out(tmp_path: Path):
    run, found = read_run(made_up.run_folder(tmp_path / "run")), made_up.survey()
    text = build_page(run, found).decode()
    assert '<p class="banner">The <em>bias share</em>' in text
    assert "At the output the bias has 50 % of the norms" in text
    bias = object_fields(found.parts).index("bias")
    found.objects = [(*row[:bias], 0.1, *row[bias + 1 :]) for row in found.objects]
    found.layers = found.layers[:1]
    text = build_page(run, found).decode()
    assert "<p>The <em>bias share</em>" in text
    assert "At the output the bias has" not in text


def test_a_survey_of_an_earlier_version_is_done_again(
    tiny_config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run = tmp_path / "run"
    evaluate(load_config(str(tiny_config)), run, limit=1)
    page = make_report(run).read_bytes()
    record = json.loads((run / "survey" / "survey.json").read_text())
    (run / "survey" / "survey.json").write_text(json.dumps({**record, "format": FORMAT - 1}))
    left_out = make_report(run, tmp_path / "page.html", ReportOptions(compute=False)).read_text()
    assert f"has format {FORMAT - 1}, this version&#39;s has {FORMAT}: it is left out" in left_out
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert make_report(run).read_bytes() == page
    assert "the samples are surveyed again" in caplog.text
    assert json.loads((run / "survey" / "survey.json").read_text())["format"] == FORMAT
