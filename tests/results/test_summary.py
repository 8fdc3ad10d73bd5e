"""From pairs to tables."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from lmd_cli.evaluation.comparisons import measured_comparisons, table_comparisons
from lmd_cli.results.run_folder import PAIR_FIELDS
from lmd_cli.results.summary import METRIC_FIELDS, paper_table, read_pairs, summarise
from lmd_cli.runtime.files import csv_lines


def titles(*modalities: str) -> list[str]:
    return [cell.title for cell in table_comparisons(modalities)]


def test_columns_are_the_papers() -> None:
    assert titles("camera", "radar") == ["R_p/R", "R_p/C", "C_p/R", "C_p/C"]
    assert titles("camera", "lidar") == ["L_p/L", "L_p/C", "C_p/L", "C_p/C"]
    assert titles("camera", "radar", "lidar") == [
        "C_pR_p/L",
        "C_pR_p/C",
        "C_pR_p/R",
        "C_pL_p/R",
        "C_pL_p/C",
        "C_pL_p/L",
        "R_pL_p/C",
        "R_pL_p/R",
        "R_pL_p/L",
    ]


def test_three_sensors_are_also_replaced_one_at_a_time() -> None:
    both = ("camera", "radar")
    assert measured_comparisons(both) == table_comparisons(both)
    more = [c.title for c in measured_comparisons(("camera", "radar", "lidar"))][9:]
    assert more == [f"{p}_p/{t}" for p in "RLC" for t in "RLC"]


def test_expected_and_names() -> None:
    cells = {cell.title: cell for cell in table_comparisons(("camera", "radar", "lidar"))}
    assert cells["C_pR_p/L"].expected == "keep"
    assert cells["C_pR_p/C"].expected == "change"
    assert cells["C_pR_p/L"].perturbed_name == "camera+radar"


@pytest.fixture
def pairs(tmp_path: Path) -> pd.DataFrame:
    rows = [
        ("a", "b", 1, "identity-ratio", "radar", "radar", 0.25, 2.0),
        ("a", "c", 2, "identity-ratio", "radar", "radar", -0.75, 4.0),
        ("b", "c", 1, "identity-ratio", "radar", "radar", math.nan, 9.0),
        ("a", "b", 1, "identity-ratio", "radar", "camera", 1.0, 0.0),
    ]
    path = tmp_path / "pairs.csv"
    path.write_bytes(csv_lines([PAIR_FIELDS, *rows]))
    return read_pairs(path)


def test_statistics_by_hand(pairs: pd.DataFrame) -> None:
    metrics = summarise(pairs, ["identity-ratio"], table_comparisons(("camera", "radar")))
    assert tuple(metrics.columns) == METRIC_FIELDS
    row = metrics.iloc[0]
    assert (row.pcc_mean, row.pcc_std) == (-0.25, 0.5)
    assert row.mse_mean == 5.0
    assert row.mse_std == pytest.approx(math.sqrt(26 / 3))  # ddof 0
    assert (row.pairs, row.undefined) == (3, 1)


def test_the_table_rounds_and_leaves_undefined_empty(pairs: pd.DataFrame) -> None:
    cells = table_comparisons(("camera", "radar"))
    table = paper_table(summarise(pairs, ["identity-ratio"], cells), cells)
    row = table.iloc[0]
    assert row["PCC R_p/R"] == "-0.25 ± 0.50"
    assert row["PCC R_p/C"] == "1.00 ± –"  # of one pair
    assert row["PCC C_p/C"] == ""
    assert list(table.columns)[1:] == [
        f"{metric} {cell.title}" for metric in ("PCC", "MSE") for cell in cells
    ]
