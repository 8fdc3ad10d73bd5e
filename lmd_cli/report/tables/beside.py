"""The paper's figures beside one's own, row by row in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lmd_cli.report.tables.render import Entry, Table

OWN, PAPER = "here", "paper"


def beside(own: Table, papers: Sequence[Table]) -> Table | None:
    """Each row of a measured table, and below it the paper's of the same method.

    Args:
        own: measured.
        papers: the paper's tables of the same number, one for each of its models; the one that
            shares the most columns of figures is taken, of several the first.

    Returns:
        a table whose first column says whose the figures are; cells that the paper does not print
        are empty, and nothing is marked as best. ``None`` where no column is shared.
    """
    shared = [len(set(_figures(own)) & set(_figures(paper))) for paper in papers]
    if not any(shared):
        return None
    paper = papers[shared.index(max(shared))]
    theirs = _by_method(paper)
    empty = Entry("")
    rows = []
    for row in own.rows:
        labels = row[: _labels(own)]
        cells = theirs.get(_method(own, row), {})
        rows.append([Entry(OWN), *(replace(entry, best=False) for entry in row)])
        rows.append([Entry(PAPER), *labels, *(cells.get(key, empty) for key in _figures(own))])
    (name, width), *groups = own.groups
    caption = f"{own.caption}; {PAPER}: {paper.caption}"
    return Table(caption, [(name, width + 1), *groups], ["figures", *own.header], rows, own.notes)


def _labels(table: Table) -> int:
    return table.groups[0][1]


def _figures(table: Table) -> list[tuple[str, str]]:
    """Group and heading of each column of figures."""
    groups = [name for name, width in table.groups for _ in range(width)]
    return list(zip(groups, table.header, strict=True))[_labels(table) :]


def _method(table: Table, row: Sequence[Entry]) -> tuple[str, ...]:
    """The labels of a row without the modalities, which differ from model to model."""
    named = zip(table.header, row[: _labels(table)], strict=False)
    return tuple(entry.text for name, entry in named if name != "Modality")


def _by_method(table: Table) -> dict[tuple[str, ...], dict[tuple[str, str], Entry]]:
    columns, first = _figures(table), _labels(table)
    return {
        _method(table, row): {
            column: replace(entry, best=False)
            for column, entry in zip(columns, row[first:], strict=True)
        }
        for row in table.rows
    }
