"""Measures samples again that were skipped because their data was missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmd_cli.data import Reader, Unreadable, collate
from lmd_cli.results.pair_rows import Stretch, stretches


def reopen(folder: Path, dataset: Any) -> list[str]:
    """Takes out rows that lack a sample which can be read by now; what is between them is kept.

    Cut off anywhere, it can be done again: rows are copied before they are cut.

    Args:
        folder: a run's, merged.
        dataset: its samples.

    Returns:
        tokens of the samples that can be read.
    """
    back = readable_again(folder, dataset)
    for stretch in _every(folder) if back else ():
        _take_out(folder, stretch, lambda row: bool(_lacking(row) & set(back)))
    return back


def readable_again(folder: Path, dataset: Any) -> list[str]:
    """Tokens of samples that rows lack and that can be read by now."""
    rows = (row for each in _every(folder) for row in each.finished())
    tokens = dict.fromkeys(token for row in rows for token in _lacking(row))
    index = {token: i for i, token in enumerate(dataset.tokens)} if tokens else {}
    read = Reader(dataset, collate)
    return [t for t in tokens if t in index and not isinstance(read(index[t]), Unreadable)]


def _every(folder: Path) -> list[Stretch]:
    return [Stretch(folder), *stretches(folder)]


def _lacking(row: Mapping[str, str]) -> set[str]:
    """Samples that a row of ``samples.csv`` could not be measured with."""
    own = [row["sample_token"]] if row["status"] != "ok" else []
    return {*own, *row["missing_partners"].split()}


def _take_out(
    folder: Path, stretch: Stretch, outdated: Callable[[Mapping[str, str]], bool]
) -> None:
    """Splits a stretch at its outdated rows."""
    rows = stretch.finished()
    at = [i for i, row in enumerate(rows) if outdated(row)]
    for before, after in zip(at, [*at[1:], len(rows)], strict=True):
        if after - before > 1:
            piece = Stretch(folder, stretch.first + before + 1)
            piece.remove()
            piece.trim()
            piece.absorb(stretch, before + 1, after)
    if at:
        stretch.cut(at[0])
