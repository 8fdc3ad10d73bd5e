"""A run's tables as pandas frames of known types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from lmd_cli.errors import ResultsError
from lmd_cli.results.columns import DTYPES, TABLES, TableColumns
from lmd_cli.results.read_run import RunResults, read_run
from lmd_cli.results.summary import read_pairs
from lmd_cli.runtime.files import open_plain, read_text


class RunTables(Mapping[str, pd.DataFrame]):
    """A run's tables by name: ``run["pairs"]``; those whose files are there.

    A frame's ``attrs["columns"]`` says what each column means, as the reference does. Files that
    ``lmd report`` and ``lmd score`` write are looked for in the run's own folder.

    Attributes:
        results: the run as the page is made of it: ``record`` (``run.json``), ``notes``, ``table``
            (the paper's layout), ``finished``.
    """

    def __init__(self, results: RunResults):
        self.results = results
        self._read: dict[str, pd.DataFrame] = {}

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.results.path

    @property
    def table(self) -> pd.DataFrame:
        """The paper's layout: ``0.05 ± 0.02`` under ``PCC R_p/R`` and so on."""
        return self.results.table

    @cached_property
    def _names(self) -> list[str]:
        return [name for name, table in TABLES.items() if (self.path / table.file).is_file()]

    def __getitem__(self, name: str) -> pd.DataFrame:
        """A frame.

        Raises:
            ResultsError: no such table, or nothing has written it yet; a damaged file.
        """
        if name not in TABLES:
            raise ResultsError(f"there is no table {name!r}; choose one of {', '.join(TABLES)}")
        spec = TABLES[name]
        if name not in self._names:
            raise ResultsError(f"{self.path / spec.file} not found: {spec.made_by} writes it")
        if name not in self._read:
            self._read[name] = self._frame(name, spec)
        return self._read[name]

    def _frame(self, name: str, spec: TableColumns) -> pd.DataFrame:
        if name == "metrics":
            return typed(self.results.metrics, spec)
        path = self.path / spec.file
        if name == "pairs":
            finished = sum(int(row["pairs"]) for row in self.results.samples)
            return typed(read_pairs(path).iloc[:finished], spec)
        if name == "samples":
            return typed(pd.DataFrame(self.results.samples), spec)
        return typed(_text_frame(path), spec)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        done = "finished" if self.results.finished else f"{len(self.results.tokens)} samples"
        return f"run {self.path} ({done}); tables: {', '.join(self)}"

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.results.notes)
        return f"<div>{escape(repr(self))}{self.table.to_html(index=False)}<ul>{notes}</ul></div>"


def load_run(folder: str | Path) -> RunTables:
    """Opens the folder of a run, also while it is being written.

    Args:
        folder: what ``lmd evaluate`` wrote.

    Raises:
        ResultsError: it is not there or not a run's, or its files do not fit together.
    """
    return RunTables(read_run(Path(folder)))


def typed(frame: pd.DataFrame, spec: TableColumns) -> pd.DataFrame:
    """A frame with a table's types, and the columns' meanings in ``attrs``.

    Raises:
        ResultsError: a column that the table lacks, or values of another type.
    """
    missing = [name for name in spec.columns if name not in frame]
    if missing:
        raise ResultsError(f"{spec.file} has no column {missing[0]}; {spec.made_by} writes it")
    try:
        columns = {name: _column(frame[name], spec.kind(name)) for name in frame.columns}
    except (ValueError, TypeError, StopIteration) as error:
        raise ResultsError(f"{spec.file} is damaged ({error}); {spec.made_by} writes it") from None
    made = pd.DataFrame(columns)
    made.attrs["columns"] = {name: spec.meaning(name) for name in made.columns}
    return made


def _column(values: Any, kind: str) -> Any:
    if kind == "str":
        return values.map(lambda v: read_text(str(v))).astype(DTYPES[kind])
    numbers = pd.to_numeric(values.replace("", None))
    if kind == "bool" and not numbers.dropna().isin((0, 1)).all():
        raise ValueError("neither 0 nor 1")
    return (
        numbers.astype("Int64").astype(DTYPES[kind])
        if kind == "bool"
        else numbers.astype(DTYPES[kind])
    )


def _text_frame(path: Path) -> pd.DataFrame:
    """Every cell as it is written.

    Raises:
        ResultsError: it cannot be read.
    """
    try:
        with open(path, "rb", opener=open_plain) as file:
            return pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, OverflowError) as error:  # also pandas' own
        raise ResultsError(f"{path} cannot be read ({error})") from None
