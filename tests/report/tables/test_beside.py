"""The paper's figures beside one's own."""

from __future__ import annotations

from lmd_cli.report.tables.beside import beside
from lmd_cli.report.tables.published import paper_rows, paper_tables
from lmd_cli.report.tables.render import Entry, Table, to_markdown
from lmd_cli.report.tables.spec import TABLES


def measured(header: list[str], groups: list[tuple[str, int]], label: str) -> Table:
    row = [Entry("LiDAR + Camera"), Entry(label), *(Entry("0.12 ± 0.01", True) for _ in header)]
    return Table("Table 2 for mine", groups, ["Modality", "BN-LN", *header], [row], ["a note"])


def test_each_row_has_the_papers_below_it() -> None:
    header = ["L_p/L (↓)", "C_p/L (↑)", "C_p/C (↓)"]
    own = measured(header, [("", 2), ("Pearson Correlation", 3)], "Identity - Ratio")
    table = beside(own, paper_tables(TABLES[2]))
    assert table is not None
    assert table.header == ["figures", "Modality", "BN-LN", *header]
    assert table.groups[0] == ("", 3)
    assert [row[0].text for row in table.rows] == ["here", "paper"]
    assert [entry.text for entry in table.rows[0][1:]] == [
        *("LiDAR + Camera", "Identity - Ratio", "0.12 ± 0.01", "0.12 ± 0.01", "0.12 ± 0.01")
    ]
    rows = paper_rows(2)
    lidar = rows[(rows.model == "camera+lidar") & (rows.row == "identity-ratio")]
    printed = lidar[(lidar.metric == "pcc")].set_index("cell")
    shown = [entry.text for entry in table.rows[1][3:]]
    assert shown == [
        f"{printed['mean'][cell]} ± {printed['std'][cell]}" for cell in ("L_p/L", "C_p/L", "C_p/C")
    ]
    assert not any(entry.best for row in table.rows for entry in row)
    assert "camera+lidar" in table.caption
    assert "| here | LiDAR + Camera |" in to_markdown(table)


def test_what_the_paper_does_not_print_is_empty() -> None:
    groups = [("", 2), ("Pearson Correlation", 1)]
    own = measured(["L_p/L (↓)"], groups, "Identity - Mine")
    table = beside(own, paper_tables(TABLES[2]))
    assert table is not None
    assert [entry.text for entry in table.rows[1][2:]] == ["Identity - Mine", ""]


def test_other_sensors_have_no_paper() -> None:
    own = measured(["mri_p/mri (↓)"], [("", 2), ("Pearson Correlation", 1)], "Identity - Ratio")
    assert beside(own, paper_tables(TABLES[2])) is None
