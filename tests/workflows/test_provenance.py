"""What a run came from: recorded, checked, repeated, packed."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.errors import ConfigError, ResultsError
from lmd_cli.networks.simplebev.network import SimpleBEV
from lmd_cli.results.provenance import invocations, read_data_hashes
from lmd_cli.results.survey_files import write_survey
from lmd_cli.runtime.revision import revision
from lmd_cli.workflows.bundle import bundle
from lmd_cli.workflows.evaluate import evaluate
from lmd_cli.workflows.recorded_run import Whereabouts, require_known_targets
from lmd_cli.workflows.report import ReportOptions, make_report
from lmd_cli.workflows.rerun import rerun
from lmd_cli.workflows.verify import verify
from tests.support import made_up

SETTINGS = ["variants=[identity-ratio]", "perturbation.count=1"]


@pytest.fixture(scope="module")
def config(tiny_config: Path) -> RunConfig:
    return load_config(str(tiny_config), SETTINGS)


@pytest.fixture(scope="module")
def straight(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provenance") / "run"
    evaluate(config, folder, limit=2)
    return folder


@pytest.fixture
def run(straight: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(straight, tmp_path / "run"))


def record_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text()))


def edit(path: Path) -> None:
    """Changes the last number of the file."""
    before, comma, last = path.read_text().rpartition(",")
    path.write_text(f"{before}{comma}1{last}")


def statuses(folder: Path, **how: Any) -> dict[str, str]:
    report = verify(folder, **how)
    return {check.name: check.status for check in report.checks}


# -- what is recorded ---------------------------------------------------------------------


def test_the_record_names_code_data_and_results(straight: Path) -> None:
    record = record_of(straight)
    assert record["code"]["lmd"] == revision(Path(__file__).parents[2] / "lmd_cli")
    assert set(record["files"]) == {
        "pairs.csv",
        "samples.csv",
        "metrics.csv",
        "table.csv",
        "notes.txt",
    }
    assert len(record["fingerprint"]) == 2
    assert record["command"]["limit"] == 2
    started, ended = invocations(straight)
    assert started["machine"]["cores"] >= 1
    assert ended["status"] == "2 of 6 samples"
    assert ended["date"] >= started["date"]


def test_hashes_of_data_files_are_what_sha256sum_reads(straight: Path, tiny_root: Path) -> None:
    hashes = read_data_hashes(straight)
    assert len(hashes) > 50
    for name, value in list(hashes.items())[::10]:
        assert hashlib.sha256((tiny_root / name).read_bytes()).hexdigest() == value


def test_a_revision_is_the_commit_of_a_tracked_file(tmp_path: Path) -> None:
    own = revision(Path(__file__).parents[2] / "lmd_cli")
    if (Path(__file__).parents[2] / ".git").exists():
        assert len(own["commit"]) == 40
    loose = tmp_path / "network.py"
    loose.write_text("x = 1\n")
    assert list(revision(loose)) == ["sha256"]


# -- going on -----------------------------------------------------------------------------


def test_nothing_is_computed_or_written_for_a_finished_run(config: RunConfig, run: Path) -> None:
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.iterdir() if p.suffix}
    summary = evaluate(config, run, limit=2)
    assert not summary.computed
    after = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.iterdir() if p.suffix}
    assert before == after
    first = evaluate(config, run / "again", limit=2)
    assert first.computed
    assert first.table.equals(summary.table)
    assert first.metrics.astype(object).equals(summary.metrics.astype(object))
    assert first.notes == summary.notes


@pytest.mark.parametrize("name", ["pairs.csv", "metrics.csv"])
def test_an_edited_value_is_found_by_every_reader(config: RunConfig, run: Path, name: str) -> None:
    edit(run / name)
    said = f"{name} changed after the run ended"
    with pytest.raises(ResultsError, match=said):
        evaluate(config, run, limit=2)
    with pytest.raises(ResultsError, match=said):
        make_report(run, options=ReportOptions(compute=False))
    with pytest.raises(ResultsError, match=said):
        bundle(run)
    checks = statuses(run, compute=False)
    assert checks["result files"] == checks["tables"] == "FAIL"


def test_an_edited_survey_is_found_by_every_reader(run: Path) -> None:
    """The page's headline is made of it."""
    by_name = {check.name: check for check in verify(run, compute=False).checks}
    assert by_name["survey"].status == "note"
    assert "lmd report has not made one" in by_name["survey"].detail
    survey = run / "survey"
    write_survey(made_up.survey(), {}, survey)
    by_name = {check.name: check for check in verify(run, compute=False).checks}
    assert by_name["survey"].detail == "5 files are as they were written"
    rows = (survey / "objects.csv").read_text().splitlines(keepends=True)
    rows[1] = f"{rows[1].rpartition(',')[0]},0.25\n"
    (survey / "objects.csv").write_text("".join(rows))
    checks = verify(run, compute=False).checks
    by_name = {check.name: (check.status, check.detail) for check in checks}
    assert by_name["survey"] == ("FAIL", "objects.csv changed")
    said = r"objects\.csv changed after the survey was made .*lmd report .*run --no-resume"
    for reader in (
        lambda: make_report(run, options=ReportOptions(compute=False)),
        lambda: bundle(run),
    ):
        with pytest.raises(ResultsError, match=said):
            reader()
    record = json.loads((survey / "survey.json").read_text())
    del record["files"]  # a survey of before hashes were noted
    (survey / "survey.json").write_text(json.dumps(record))
    by_name = {check.name: check for check in verify(run, compute=False).checks}
    assert by_name["survey"].status == "note"
    assert "no hashes" in by_name["survey"].detail
    (survey / "survey.json").write_text("{")
    assert statuses(run, compute=False)["survey"] == "FAIL"


def test_results_of_changed_code_are_not_mixed(
    config: RunConfig, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SimpleBEV.encode

    def changed(self: SimpleBEV, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: 1.01 * x for name, x in real(self, batch).items()}

    monkeypatch.setattr(SimpleBEV, "encode", changed)
    said = "results of another network.*from the same inputs: its code or weights have changed"
    with pytest.raises(ResultsError, match=said):
        evaluate(config, run)
    with pytest.raises(ResultsError, match=said):
        make_report(run)
    with pytest.raises(ResultsError, match=said):
        rerun(run)
    assert statuses(run, samples=1)["network"] == "FAIL"


def test_results_of_changed_data_are_not_mixed(
    tiny_config: Path, own_root: Path, tmp_path: Path
) -> None:
    config = load_config(str(tiny_config), [*SETTINGS, f"data.dataroot={own_root}"])
    evaluate(config, tmp_path / "run", limit=1)
    images = sorted((own_root / "samples" / "CAM_BACK").iterdir())
    shutil.copy(images[-1], images[0])
    with pytest.raises(ResultsError, match="and so are its inputs: the data"):
        evaluate(config, tmp_path / "run")
    checks = statuses(tmp_path / "run", samples=1)
    assert checks["data files"] == checks["network"] == "FAIL"


# -- again --------------------------------------------------------------------------------


def test_a_run_repeats_from_its_record(run: Path) -> None:
    done = rerun(run)
    assert done.output.name == "run-rerun"
    assert set(done.same) == set(record_of(run)["files"])
    assert done.different == done.changed == []
    assert (done.output / "run.json").read_bytes() == (run / "run.json").read_bytes()
    with pytest.raises(ResultsError, match="is the run itself"):
        rerun(run, run)


def test_verify_measures_samples_again(run: Path) -> None:
    report = verify(run, samples=1)
    by_name = {check.name: check for check in report.checks}
    assert report.ok
    assert by_name["samples"].detail == "1 computed again: the same to the last digit"
    assert by_name["status"].status == "note"  # two of six samples
    lines = (run / "pairs.csv").read_text().splitlines(keepends=True)
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:-2], str(float(cells[-2]) - 0.25), cells[-1]])
    (run / "pairs.csv").write_text("".join(lines))
    record = record_of(run)
    del record["files"]  # whoever edits the rows can edit the record
    (run / "run.json").write_text(json.dumps(record))
    by_name = {check.name: check for check in verify(run, samples=1).checks}
    assert by_name["result files"].status == "note"
    assert by_name["samples"].status == "FAIL"
    assert "largest difference" in by_name["samples"].detail


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"command": None}, "does not say by which command"),
        ({"command": {"name": "format-disk"}}, "command is none that this version knows"),
        ({"command": {"name": "sanity", "limit": -1}}, "command is none that this version knows"),
        ({"config": None}, "lacks config"),
        ({"files": {"../../secret": "00"}}, "is not what lmd writes there"),
    ],
)
def test_records_from_elsewhere(run: Path, change: dict[str, object], said: str) -> None:
    (run / "run.json").write_text(json.dumps(record_of(run) | change))
    with pytest.raises(ResultsError, match=said):
        rerun(run)


def test_code_that_a_record_names_needs_a_voucher(run: Path) -> None:
    record = record_of(run)
    record["config"] = {**record["config"], "model": {"target": "handed:model"}}
    with pytest.raises(
        ConfigError, match=r"model.target 'handed:model' .* is code that is not run"
    ):
        require_known_targets(run, record, Whereabouts())
    require_known_targets(run, record, Whereabouts(trust=True))
    (run / "run.json").write_text(json.dumps(record))
    for action in (rerun, verify):
        with pytest.raises(ConfigError, match="--trust"):
            action(run)


# -- packed -------------------------------------------------------------------------------


def test_a_bundle_holds_everything_and_says_what(run: Path, tmp_path: Path) -> None:
    (run / "secret").symlink_to(tmp_path)
    (run / ".hidden").write_text("no")
    archive = bundle(run)
    with zipfile.ZipFile(archive) as file:
        manifest = json.loads(file.read("run/manifest.json"))
        names = set(file.namelist())
        page = file.read("run/report.html")
    assert names == {"run/manifest.json", *(f"run/{name}" for name in manifest["files"])}
    assert {"run/run.json", "run/pairs.csv", "run/data.sha256"} <= names
    assert not any("secret" in name or "hidden" in name for name in names)
    assert manifest["run"]["command"]["name"] == "evaluate"
    assert page == (run / "report.html").read_bytes()
    first = archive.read_bytes()
    with pytest.raises(ResultsError, match="is there already"):
        bundle(run)
    assert bundle(run, overwrite=True).read_bytes() == first
    with pytest.raises(ResultsError, match="lies in the run's folder"):
        bundle(run, run / "own.zip")
