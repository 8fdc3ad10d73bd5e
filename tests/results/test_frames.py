"""A run's tables as frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmd_cli
from lmd_cli.config.loading import load_config
from lmd_cli.errors import ResultsError
from lmd_cli.results.columns import DTYPES, TABLES, TableColumns
from lmd_cli.results.frames import RunTables, typed
from lmd_cli.results.survey_files import read_survey
from lmd_cli.workflows.evaluate import evaluate
from lmd_cli.workflows.report import make_report


@pytest.fixture(scope="module")
def run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> RunTables:
    folder = tmp_path_factory.mktemp("frames") / "run"
    evaluate(load_config(str(tiny_config)), folder, limit=2)
    make_report(folder)
    return lmd_cli.load_run(folder)


def test_every_table_that_is_there_has_its_types_and_meanings(run: RunTables) -> None:
    assert list(run) == ["metrics", "pairs", "samples", "objects", "layers"]
    assert len(run) == 5
    for name, frame in run.items():
        assert len(frame)
        spec = TABLES[name]
        assert set(spec.columns) <= set(frame.columns)
        for column in frame.columns:
            assert str(frame[column].dtype) == DTYPES[spec.kind(column)], (name, column)
            assert frame.attrs["columns"][column] == spec.meaning(column)
    assert run["pairs"] is run["pairs"]


def test_values_are_those_of_the_files(run: RunTables) -> None:
    raw = pd.read_csv(run.path / "pairs.csv", float_precision="round_trip")
    assert run["pairs"]["pcc"].equals(raw["pcc"])
    assert list(run["pairs"]["offset"]) == list(raw["offset"])
    survey = read_survey(run.path / "survey", None)
    assert survey is not None
    detected = [row[list(run["objects"].columns).index("detected")] for row in survey.objects]
    known = run["objects"]["detected"]
    assert [None if pd.isna(v) else bool(v) for v in known] == [
        None if v is None else bool(v) for v in detected
    ]
    assert list(run.table["variant"]) == ["identity-ratio", "uniform-identity"]
    assert np.isfinite(run["samples"]["residual"]).all()


def test_a_run_shows_itself(run: RunTables) -> None:
    assert repr(run) == (
        f"run {run.path} (2 samples); tables: metrics, pairs, samples, objects, layers"
    )
    page = run._repr_html_()
    assert "PCC R_p/C" in page
    assert "Random weights" in page


def test_what_is_not_there_is_said(run: RunTables, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no table 'pair'; choose one of metrics, pairs"):
        run["pair"]
    with pytest.raises(ResultsError, match=r"score\.csv not found: lmd score writes it"):
        run["scores"]
    with pytest.raises(ResultsError, match="is not a folder"):
        lmd_cli.load_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": ["1"]}, "has no column b"),
        ({"a": ["x"], "b": ["1"]}, "one.csv is damaged"),
        ({"a": ["1.5"], "b": ["1"]}, "one.csv is damaged"),
        ({"a": ["1"], "b": ["2"]}, "one.csv is damaged"),
        ({"a": ["1"], "b": ["1"], "more": ["1"]}, "one.csv is damaged"),
    ],
)
def test_damaged_tables_are_refused(values: dict[str, list[str]], message: str) -> None:
    columns = {"a": ("int", "a number"), "b": ("bool", "yes or no")}
    spec = TableColumns("one.csv", "lmd evaluate", columns, {})  # type: ignore[arg-type]
    with pytest.raises(ResultsError, match=message):
        typed(pd.DataFrame(values), spec)


def test_score_tables_are_read_beside_a_run(run: RunTables) -> None:
    folder = run.path / "score"
    folder.mkdir()
    columns = ",".join(TABLES["scores"].columns)
    (folder / "score.csv").write_text(
        f"{columns}\nlmd:identity-ratio,bias_share,,0.4,0.3,0.5,9,0\n"
    )
    scores = lmd_cli.load_run(run.path)["scores"]
    assert scores["estimate"].tolist() == [0.4]
    assert scores["modality"].tolist() == [""]
