"""The paper's tables: layout, rounding, marks, formats, and the paper's own figures."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pandas as pd
import pytest

from lmd_cli.errors import MethodError
from lmd_cli.evaluation.comparisons import table_comparisons
from lmd_cli.report.tables.published import paper_rows, paper_tables
from lmd_cli.report.tables.render import (
    Column,
    Table,
    columns_of,
    figures_of,
    lay_out,
    modality_label,
    to_csv,
    to_latex,
    to_markdown,
)
from lmd_cli.report.tables.spec import TABLES, refusal
from lmd_cli.workflows.table import table_numbers

TWO, THREE = ("camera", "radar"), ("camera", "radar", "lidar")


def figures(number: int, modalities: tuple[str, ...], **values: tuple[float, float]) -> Any:
    """The same figure everywhere, but for rows that are given."""
    spec = TABLES[number]
    return {
        (row.name, column.metric, column.title): values.get(row.name.replace("-", "_"), (0.5, 0.1))
        for row in spec.rows
        for column in columns_of(spec, spec.cells(modalities))
    }


def made(number: int, modalities: tuple[str, ...], **values: tuple[float, float]) -> Table:
    spec = TABLES[number]
    columns = columns_of(spec, spec.cells(modalities))
    actual = figures(number, modalities, **values)
    return lay_out(spec, actual, columns, "Caption & more", ["A note."], modality_label(modalities))


def test_columns_of_table_1_are_the_papers() -> None:
    assert made(1, TWO).header == [
        *("Modality", "Method", "Act.", "Norm."),
        *("R_p/R (↓)", "R_p/C (↑)", "C_p/R (↑)", "C_p/C (↓)"),
        *("R_p/R (↑)", "R_p/C (↓)", "C_p/R (↓)", "C_p/C (↑)"),
    ]
    lidar = made(1, ("camera", "lidar"))
    assert lidar.header[4] == "L_p/L (↓)"
    assert lidar.rows[0][0].text == "LiDAR + Camera"


def test_columns_of_table_7_are_the_papers() -> None:
    titles = "C_pR_p/L C_pR_p/C C_pR_p/R C_pL_p/R C_pL_p/C C_pL_p/L R_pL_p/C R_pL_p/R R_pL_p/L"
    header = made(7, THREE).header
    assert [h.partition(" ")[0] for h in header[3:12]] == titles.split()
    assert [h[-2] for h in header[3:12]] == ["↑", "↓", "↓"] * 3
    assert [h[-2] for h in header[12:]] == ["↓", "↑", "↑"] * 3


def test_table_4_shows_kept_cells_only() -> None:
    assert made(4, TWO).header == ["Modality", "Method", "R_p/C (↑)", "C_p/R (↑)"]
    assert [h.partition(" ")[0] for h in made(4, THREE).header[2:]] == [
        *("C_pR_p/L", "C_pL_p/R", "R_pL_p/C")
    ]


def test_the_best_of_a_column_is_found_by_the_numbers() -> None:
    table = made(2, TWO, identity_ratio=(0.5 - 1e-5, 0.1), uniform_identity=(0.61, 0.2))
    low, high = table.header.index("R_p/R (↓)"), table.header.index("R_p/C (↑)")
    assert {row[low].text for row in table.rows[1:]} == {"0.50 ± 0.10"}  # alike as shown
    assert [row[low].best for row in table.rows] == [False, False, False, True]
    ties = made(2, TWO, identity_ratio=(0.5 - 1e-8, 0.1))  # float32 knows no difference
    assert all(row[low].best for row in ties.rows)
    assert [row[high].best for row in table.rows] == [True, False, False, False]
    assert table.rows[0][high].text == "0.61 ± 0.20"
    missing = lay_out(
        TABLES[4],
        {("shapley", "pcc", "R_p/C"): (float("nan"), float("nan"))},
        [Column("pcc", "R_p/C", False)],
        "",
        [],
        "",
    )
    assert [row[-1].text for row in missing.rows] == ["", ""]
    assert not any(entry.best for row in missing.rows for entry in row)


def test_rounding_is_the_papers() -> None:
    assert made(7, THREE, shapley=(0, 0)).rows[0][3].text == "0.5000 ± 0.100"
    assert made(4, TWO).rows[0][2].text == "0.5000 ± 0.10"


def test_csv_reads_back() -> None:
    table = made(1, TWO, identity_ratio=(0.05, 0.02))
    lines = list(csv.reader(io.StringIO(to_csv(table))))
    assert len({len(line) for line in lines}) == 1
    assert lines[0][4] == "Pearson Correlation"
    assert lines[1] == table.header
    assert lines[-1][1:5] == ["LMD (Ratio Rule)", "✓", "✓", "0.05 ± 0.02*"]


def test_markdown_has_one_row_for_each_method() -> None:
    text = to_markdown(made(6, TWO, identity_ratio_sum=(0.1, 0.0)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2
    assert len({line.count("|") for line in lines}) == 1
    assert "PCC R_p/R (↓)" in lines[0]
    assert "**0.10 ± 0.00**" in lines[2]
    assert text.endswith("- A note.\n")


def test_latex_is_well_formed() -> None:
    text = to_latex(made(7, THREE, identity_ratio=(1.0, 0.0)))
    columns = len(made(7, THREE).header)
    rows = [
        line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert all(line.count("&") == columns - 1 for line in rows)
    alignment = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert alignment is not None
    assert len(alignment[1]) == columns
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert r"Caption \& more" in text
    assert r"$C_pR_p/L\ (\uparrow)$" in text
    assert r"\textbf{1.0000 $\pm$ 0.000}" in text
    assert r"$\checkmark$" in text
    assert text.startswith("% A note.")
    spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", text)]
    assert sum(spans) == columns


def test_latex_of_modalities_that_the_paper_does_not_have() -> None:
    table = made(2, ("camera", "thermal"))
    assert r"$\mathrm{thermal}_p/C\ (\uparrow)$" in to_latex(table)


def test_figures_come_from_the_metrics() -> None:
    cells = table_comparisons(TWO)
    metrics = pd.DataFrame(
        [
            {
                "variant": "shapley",
                "perturbed": "radar",
                "target": "camera",
                **dict.fromkeys(("pcc_mean", "pcc_std"), 0.25),
                **dict.fromkeys(("mse_mean", "mse_std"), 4.0),
                "pairs": 3,
                "undefined": 1,
            }
        ]
    )
    assert figures_of(metrics, cells) == {
        ("shapley", "pcc", "R_p/C"): (0.25, 0.25),
        ("shapley", "mse", "R_p/C"): (4.0, 4.0),
    }


@pytest.mark.parametrize(
    ("number", "models", "cells"),
    [(1, 2, 8), (2, 2, 8), (4, 3, None), (6, 1, 8), (7, 1, 9), (8, 1, 9), (9, 1, 4), (10, 1, 4)],
)
def test_the_papers_figures_are_whole(number: int, models: int, cells: int | None) -> None:
    spec, rows = TABLES[number], paper_rows(number)
    assert rows.model.nunique() == models
    assert set(rows.row) == {row.name for row in spec.rows}
    if cells is not None:
        assert len(rows) == models * len(spec.rows) * cells
    assert not rows.duplicated(["model", "row", "metric", "cell"]).any()
    for table in paper_tables(spec):
        assert all(entry.text for row in table.rows for entry in row[len(spec.headers) + 1 :])
        assert "of the paper" in table.caption


def test_the_papers_figures_are_as_printed() -> None:
    def printed(number: int, model: str, row: str, metric: str, cell: str) -> str:
        rows = paper_rows(number)
        chosen = rows[
            (rows.model == model)
            & (rows.row == row)
            & (rows.metric == metric)
            & (rows.cell == cell)
        ]
        return f"{chosen['mean'].item()} {chosen['std'].item()}"

    assert printed(1, "camera+radar", "identity-ratio", "mse", "C_p/C") == "54.49 22.15"
    assert printed(1, "camera+lidar", "leave-one-out", "pcc", "L_p/L") == "0.41 0.08"
    assert printed(2, "camera+lidar", "identity-uniform", "mse", "C_p/L") == "0.01 0.00"
    assert printed(4, "camera+radar+lidar", "shapley", "pcc", "C_pR_p/L") == "0.7025 0.07"
    assert (
        printed(8, "camera+radar+lidar", "identity-uniform", "pcc", "C_pL_p/L") == "0.0087 0.1125"
    )
    assert printed(10, "camera+radar (CRN)", "identity-ratio", "mse", "R_p/R") == "11.5812 2.712"


def test_tables_that_do_not_apply_say_why() -> None:
    def convolves() -> bool:
        return False

    def attends() -> bool:
        return True

    assert refusal(TABLES[1], TWO, convolves) is None
    assert refusal(TABLES[4], THREE, convolves) is None
    assert refusal(TABLES[9], TWO, attends) is None
    assert refusal(TABLES[7], TWO, convolves) == (
        "table 7 compares 3 modalities, and the model has 2 (camera, radar)"
    )
    assert "the model has 3 (camera, radar, lidar)" in (refusal(TABLES[2], THREE, convolves) or "")
    assert "about attention" in (refusal(TABLES[10], TWO, convolves) or "")


def test_numbers() -> None:
    """Which tables a text of the command line asks for."""
    assert table_numbers("all") == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert table_numbers("7") == [7]
    for text in ("5", "two", "-1", ""):
        with pytest.raises(MethodError, match=r"there is no table .* choose one of 1, 2, 3, 4, 6"):
            table_numbers(text)
