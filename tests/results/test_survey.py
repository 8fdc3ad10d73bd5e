"""The second pass over a run's samples, its files, and the page made of them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

import lmd_cli
from lmd_cli.assembly.build import build_grid
from lmd_cli.config.loading import load_config
from lmd_cli.decomposition import OperationRecord
from lmd_cli.errors import ConfigError, ForeignFileError, ResultsError
from lmd_cli.evaluation.ground.plane import Plane
from lmd_cli.evaluation.ground.vehicles import object_fields
from lmd_cli.results import journal
from lmd_cli.results import survey as survey_module
from lmd_cli.results.survey import Draft, LayerMeans
from lmd_cli.results.survey_draft import DraftFolder
from lmd_cli.results.survey_files import FILES, read_survey, write_survey
from lmd_cli.workflows import report as make
from lmd_cli.workflows.evaluate import evaluate
from lmd_cli.workflows.ready import Ready, make_ready
from lmd_cli.workflows.report import ReportOptions, make_report, open_surveyed
from lmd_cli.workflows.survey import survey
from tests.support import made_up
from tests.support.undated import undated


@pytest.fixture(scope="module")
def run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    evaluate(load_config(str(tiny_config)), folder, limit=3)
    return folder


def test_a_survey_agrees_with_decomposing_each_sample(tiny_config: Path):
    config = load_config(str(tiny_config))
    ready = make_ready(config)
    tokens = [ready.dataset.tokens[i] for i in (4, 1, 2)]
    made = survey(ready, tokens, Plane.of_grid(build_grid(config.model)), viewer=1)
    assert [row[0] for row in made.samples] == tokens
    assert [one.index for one in made.shown] == [1, 2, 4]  # all: fewer than the ten
    single = ready.decompose(1)
    np.testing.assert_array_equal(
        made.shown[0].parts, np.stack([part.numpy() for part in single.parts.values()])
    )
    assert made.shown[0].truth.any()
    annotated = object_fields(made.parts).index("annotated")
    vehicles = [row for row in made.objects if row[annotated]]
    assert len(vehicles) == sum(len(ready.dataset.boxes(i)) for i in (4, 1, 2))
    assert len(made.shown[0].frames) == sum(row[0] == tokens[1] for row in made.objects)
    assert made.shown[0].moment.startswith("0.5 s, 20")
    shares = np.array([row[3:] for row in made.layers])
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-9)
    assert len(made.shown[0].images) == 6


def test_the_rules_of_the_maps_are_measured_as_the_tables_are(
    run: Path, tiny_config: Path, tmp_path: Path
):
    """Against an evaluation under these rules, with the first partner of the run's schedule."""
    page = make_report(run).read_text()
    stride = json.loads((run / "run.json").read_text())["schedule"]["stride"]
    overrides = ["variants=[identity-ratio-shapley]", "perturbation.count=1"]
    config = load_config(str(tiny_config), [*overrides, f"perturbation.stride={stride}"])
    evaluate(config, tmp_path, limit=3)
    assert (run / "survey" / "pairs.csv").read_bytes() == (tmp_path / "pairs.csv").read_bytes()
    table = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    (own,) = (list(row.values()) for row in table)
    rows = re.findall(r"<tr>(.*?)</tr>", page.partition('id="table"')[2].partition("</table>")[0])
    assert re.findall(r"<td[^>]*>([^<]*)</td>", rows[-1])[:5] == own[:5]  # the name, and the PCCs
    assert "identity-ratio-shapley, by which the maps and charts are made, was not among" in page
    assert "measured it, over 3 samples with one other sample each" in page
    assert page.count("by the rules identity-ratio-shapley") >= 4
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    known = open_surveyed(copy, ReportOptions(variant="identity-ratio", limit=1)).survey
    assert known is not None
    assert not known.pairs  # in the tables: not measured again


def test_layer_shares_are_averaged_over_samples():
    means = LayerMeans()
    for camera in (0.2, 0.6):
        shares = {"camera": camera, "bias": 1 - camera}
        record = OperationRecord(0, "a", "torch.relu", "activation", "eq. 9", 1.0, 0.0, 0.0, shares)
        means.add([record])
    assert means.names == ["camera", "bias"]
    assert means.rows() == [(0, "a", "torch.relu", pytest.approx(0.4), pytest.approx(0.6))]


def test_files_hold_the_survey(tmp_path: Path):
    actual, identity = made_up.survey(made_up.HOSTILE), {"variant": ("a", 1)}
    write_survey(actual, identity, tmp_path / "survey")
    assert read_survey(tmp_path / "survey", {"variant": ("b", 1)}) is None
    read = read_survey(tmp_path / "survey", identity)
    assert read is not None
    assert (read.plane, read.parts, read.layers) == (actual.plane, actual.parts, actual.layers)
    assert read.objects == actual.objects
    assert read.samples == actual.samples
    assert [one.token for one in read.shown] == [one.token for one in actual.shown]
    np.testing.assert_array_equal(read.shown[1].parts, actual.shown[1].parts)
    np.testing.assert_array_equal(read.shown[2].truth, actual.shown[2].truth)


@pytest.mark.parametrize("damage", [b"PK broken", b"PK\x03\x04broken", b""])
def test_a_damaged_survey_is_named(tmp_path: Path, damage: bytes):
    write_survey(made_up.survey(), {}, tmp_path / "survey")
    (tmp_path / "survey" / "maps.npz").write_bytes(damage)
    with pytest.raises(ResultsError, match=r"survey is damaged .*remove it and try again"):
        read_survey(tmp_path / "survey", {})


def test_a_page_leaves_the_evaluation_as_it_was_and_comes_again_the_same(run: Path):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    first = make_report(run).read_bytes()
    assert {name: (run / name).read_bytes() for name in before} == before
    objects = (run / "survey" / "objects.csv").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (run / "survey").iterdir()}
    assert make_report(run).read_bytes() == first
    assert {path: path.stat().st_mtime_ns for path in times} == times  # not computed again
    said = json.loads((run / "survey" / "made.json").read_bytes())
    for path in times:
        path.unlink()
    assert undated(make_report(run).read_bytes()) == undated(first)
    assert said["version"] == lmd_cli.__version__
    for entry in (said["date"], said["command"], said["code"]["sha256"], said["machine"]["system"]):
        assert escape(entry) in first.decode()
    assert (run / "survey" / "objects.csv").read_bytes() == objects
    rows = list(csv.DictReader(objects.decode().splitlines()))
    assert {row["scene"] for row in rows} <= {"scene-0103", "scene-0916"}
    assert "the run was limited, or cut off" in first.decode()  # three of six samples


KILLED = """
import os, signal, sys
from pathlib import Path
from lmd_cli.results import survey_draft
from lmd_cli.workflows.report import ReportOptions, make_report
write, states = survey_draft.write_atomically, []
def deadly(path, data):
    states.extend([path] if path.name == "state.json" else [])
    if len(states) == 3:  # the third sample's rows are there, and do not count yet
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, data)
survey_draft.write_atomically = deadly
make_report(Path(sys.argv[1]), options=ReportOptions(viewer=1))
"""


def test_a_survey_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = ReportOptions(viewer=1)
    monkeypatch.setattr(survey_module, "DISAGREEING", 1)
    monkeypatch.setattr(
        make, "build_page", lambda run, made, detections, verdict: b""
    )  # it only reads the survey
    whole, cut = (tmp_path / name for name in ("run", "cut" / Path("run")))
    for copy in (whole, cut):
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("survey"))
    make_report(whole, options=options)
    deadly = KILLED.replace(
        "write, states", "from lmd_cli.results import survey\nsurvey.DISAGREEING = 1\nwrite, states"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run([sys.executable, "-c", deadly, str(cut)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    unfinished = cut / "survey" / "unfinished"
    assert json.loads((unfinished / "state.json").read_text())["done"] == 2
    assert (unfinished / "rows.jsonl").read_bytes().count(b"\n") == 3
    decomposed: list[int] = []
    decompose = Ready.decompose
    monkeypatch.setattr(
        Ready,
        "decompose",
        lambda self, *given: decomposed.append(given[0]) or decompose(self, *given),
    )
    make_report(cut, options=options)
    assert len(decomposed) == 1  # of three
    assert not unfinished.exists()
    assert {path.name for path in (cut / "survey").iterdir()} == {*FILES, "made.json"}
    for name in FILES:
        assert (cut / "survey" / name).read_bytes() == (whole / "survey" / name).read_bytes(), name


def test_a_draft_of_something_else_is_not_gone_on_from(tmp_path: Path):
    folder = DraftFolder(tmp_path, {"variant": "a"})
    draft = folder.read(1)
    draft.parts, draft.indices, draft.objects, draft.pairs = ["camera"], [4], [[]], [[]]
    draft.samples = [("t", "s", "d", "0.0 s", 0, 0.1, 1e-7)]
    draft.shown = {0: made_up.survey().shown[0]}
    folder.write(draft)
    assert DraftFolder(tmp_path, {"variant": "a"}).read(1).indices == [4]
    assert DraftFolder(tmp_path, {"variant": "b"}).read(1).indices == []
    folder.write(draft)
    (tmp_path / "rows.jsonl").write_bytes(b"")
    with pytest.raises(ResultsError, match=r"0 of the 1 rows that state\.json counts; remove"):
        folder.read(1)


@pytest.mark.parametrize("layers", [[3], [1, [[0, "a"]]], [1, [[0, "a", "b", 3]]], None, {}])
def test_a_draft_whose_sums_are_none_is_named(tmp_path: Path, layers: object):
    folder, draft = DraftFolder(tmp_path, {}), Draft(1)
    draft.parts, draft.indices, draft.objects, draft.pairs = ["camera"], [4], [[]], [[]]
    draft.samples = [("t", "s", "d", "0.0 s", 0, 0.1, 1e-7)]
    draft.shown = {0: made_up.survey().shown[0]}
    folder.write(draft)
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**state, "layers": layers}))
    with pytest.raises(ResultsError, match=r"is damaged .*; remove it to survey anew"):
        folder.read(1)


def test_a_draft_that_is_cut_loses_nothing_whenever_the_process_dies(tmp_path: Path, monkeypatch):
    """Rows behind those that count go in one step: there is no moment without the others."""
    folder, draft = DraftFolder(tmp_path, {}), Draft(1)
    draft.parts, draft.indices, draft.objects, draft.pairs = ["camera"], [4], [[]], [[]]
    draft.samples = [("t", "s", "d", "0.0 s", 0, 0.1, 1e-7)]
    draft.shown = {0: made_up.survey().shown[0]}
    folder.write(draft)
    rows = tmp_path / "rows.jsonl"
    whole = rows.read_bytes()
    rows.write_bytes(whole + b'[5, ["torn')
    modes = []

    def opened(path: Path, mode: str, **options: object):
        modes.append(mode)
        return open(path, mode, **options)

    monkeypatch.setattr(journal, "open", opened, raising=False)
    assert folder.read(1).indices == [4]
    assert rows.read_bytes() == whole
    assert modes == ["rb", "ab+"]  # "wb" would empty it first


def test_two_processes_do_not_make_one_survey(tmp_path: Path):
    first, second = (DraftFolder(tmp_path / "unfinished", {}) for _ in range(2))
    refused = pytest.raises(ResultsError, match="another run is writing")
    with first.held(), refused, second.held():
        pass
    assert not (tmp_path / "unfinished").exists()


def test_without_a_survey_nothing_is_computed(run: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(make, "_compute", None)
    monkeypatch.setattr(make, "SURVEY", "none")
    page = make_report(run, tmp_path / "page.html", ReportOptions(compute=False))
    assert 'id="viewer-data"' not in page.read_text()


def test_a_variant_that_the_run_does_not_have(run: Path):
    with pytest.raises(
        ConfigError, match="not among the run's: identity-ratio-shapley, identity-ratio, "
    ):
        make_report(run, options=ReportOptions(variant="identity-identity"))


def test_weights_and_samples_must_be_the_runs(run: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    record = json.loads((copy / "run.json").read_text())
    record["samples"]["sha256"] = "0" * 64
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(ResultsError, match="the samples of the split are not those of the run"):
        make_report(copy)
    record["config"]["model"]["encoder"] = "res9"
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(ResultsError, match="this version cannot read"):
        make_report(copy)


def test_a_survey_that_is_a_link_is_neither_read_nor_written(run: Path, tmp_path: Path):
    copy, outside = tmp_path / "copy", tmp_path / "outside"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("survey", "*.html"))
    outside.mkdir()
    (copy / "survey").symlink_to(outside)
    with pytest.raises(ForeignFileError, match="survey is a symbolic link; expected a folder"):
        make_report(copy)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threads": 10**9}, "threads is not what lmd writes there"),
        ({"compute": {"chunk_bytes": {"linear": -1}}}, "compute.chunk_bytes.linear is not"),
        ({"versions": []}, "versions is not"),
        ({"checkpoint": "\ud800"}, "holds text that is no Unicode"),
        ({"weights": None}, "lacks weights: not a run's record"),
        (
            {"schedule": None, "command": {"name": "detect"}},
            "is a run of lmd detect; give the folder",
        ),
        (
            {"schedule": None, "command": {"name": "score"}, "rows": {"methods": ["lmd"]}},
            "is a run of lmd score; give the folder",
        ),
    ],
)
def test_a_record_that_nobody_wrote_is_refused(
    run: Path, tmp_path: Path, change: dict[str, object], said: str
):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | change))
    with pytest.raises(ResultsError, match=re.escape(said)):
        make_report(copy)
