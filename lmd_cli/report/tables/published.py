"""The paper's own figures, for reference beside measured ones."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lmd_cli.report.tables.render import Column, Table, lay_out, modality_label
from lmd_cli.report.tables.spec import TableSpec

FOLDER = Path(__file__).parent / "paper"


def paper_rows(number: int) -> pd.DataFrame:
    """What the paper prints in a table: columns model, row, metric, cell, mean, std (numbers as
    text, as printed)."""
    return pd.read_csv(FOLDER / f"table{number}.csv", dtype=str)


def paper_tables(spec: TableSpec) -> list[Table]:
    """The paper's table, one for each of its models, in the layout and rounding of ours."""
    rows = paper_rows(spec.number)
    tables = []
    for model, group in rows.groupby("model", sort=False):
        records = group.to_dict("records")
        figures = {
            (str(r["row"]), str(r["metric"]), str(r["cell"])): (float(r["mean"]), float(r["std"]))
            for r in records
        }
        columns = _columns(spec, [(str(r["metric"]), str(r["cell"])) for r in records])
        caption = f"Table {spec.number} of the paper, {model}: {spec.title}"
        label = modality_label(str(model).partition(" ")[0].split("+"))
        tables.append(lay_out(spec, figures, columns, caption, spec.notes, label))
    return tables


def _columns(spec: TableSpec, titles: list[tuple[str, str]]) -> list[Column]:
    """The paper's columns, in its order."""
    columns = []
    for metric, title in dict.fromkeys(titles):
        perturbed, _, target = title.partition("/")
        change = f"{target}_p" in perturbed
        columns.append(
            Column("pcc" if metric == "pcc" else "mse", title, change == (metric == "pcc"))
        )
    return columns
