"""Reads the results in a run's folder, as far as the run has come."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lmd_cli.decomposition import Variant
from lmd_cli.errors import ResultsError
from lmd_cli.evaluation.comparisons import Comparison, measured_comparisons, table_comparisons
from lmd_cli.results.run_folder import RunFolder
from lmd_cli.results.summary import paper_table, read_pairs, summarise
from lmd_cli.runtime.files import read_own

#: Of modalities or variants.
_MOST_NAMES = 64


@dataclass(frozen=True, eq=False)
class RunResults:
    """The results of a run so far.

    Attributes:
        path: its folder.
        record: the contents of ``run.json``.
        samples: rows of ``samples.csv``, finished samples only, in the order of the walk.
        pairs: rows of ``pairs.csv`` of these samples.
        metrics: the columns of ``metrics.csv``, from the finished samples' pairs.
        table: the paper's layout.
        notes: lines of ``notes.txt``; none before the run's end.
    """

    path: Path
    record: dict[str, Any]
    samples: list[dict[str, str]]
    pairs: pd.DataFrame
    metrics: pd.DataFrame
    table: pd.DataFrame
    notes: list[str]

    @property
    def sha256(self) -> str:
        """Of ``run.json``."""
        return hashlib.sha256(read_own(self.path / "run.json")).hexdigest()

    @property
    def finished(self) -> bool:
        """Whether every sample of the split is in."""
        return self.record.get("status") == "finished"

    @property
    def tokens(self) -> list[str]:
        """Samples that were evaluated, in the order of the walk."""
        return [row["sample_token"] for row in self.samples if row["status"] == "ok"]

    @property
    def modalities(self) -> list[str]:
        return list(self.record["config"]["model"]["modalities"])

    @property
    def variants(self) -> list[str]:
        return list(self.record["config"]["variants"])

    @property
    def rows(self) -> list[str]:
        """Of the table: the config's variants, or the methods that were asked for."""
        return list(self.record.get("rows") or self.variants)

    @property
    def known_variants(self) -> list[str]:
        """The one that explains the run, then those that were evaluated, each once."""
        own = self.record["config"].get("explain")
        return list(dict.fromkeys((*([own] if isinstance(own, str) else []), *self.variants)))

    @property
    def exact(self) -> list[str]:
        """Rows whose kept cells are 1 and 0 by construction: variants of LMD, linearised once."""
        return [name for name in self.rows if is_variant(name)]

    @property
    def comparisons(self) -> list[Comparison]:
        """The table's columns."""
        return table_comparisons(self.modalities)

    @property
    def scope(self) -> str:
        """Of how many samples every number is: ``6 of 40 samples``, ``all 40 samples``."""
        count, every = len(self.tokens), self.record["samples"]["count"]
        return f"all {every} samples" if count == every else f"{count} of {every} samples"


def read_run(path: Path) -> RunResults:
    """Reads a folder that ``lmd evaluate`` wrote, also while it is being written.

    Rows of an unfinished sample are left out.

    Raises:
        ResultsError: the folder is not there or not a run's, or its files do not fit together.
    """
    folder = _existing(path)
    record = _record(folder)
    samples = folder.finished_samples()
    expected = sum(int(row["pairs"]) for row in samples)
    pairs = _pairs(folder, expected)
    modalities = record["config"]["model"]["modalities"]
    rows = record.get("rows") or record["config"]["variants"]
    asked = record.get("perturbed")
    measured = [
        c for c in measured_comparisons(modalities) if asked is None or c.perturbed_name in asked
    ]
    metrics = summarise(pairs, rows, measured)
    table = paper_table(metrics, table_comparisons(modalities))
    return RunResults(path, record, samples, pairs, metrics, table, _notes(folder))


def is_variant(name: str) -> bool:
    """Whether a row is LMD's, linearised at the clean sample."""
    try:
        Variant.parse(name)
    except ValueError:
        return False
    return True


def existing_record(path: Path) -> dict[str, Any]:
    """The record of a folder that any command wrote.

    Raises:
        ResultsError: it is not there, or names no config.
    """
    record = _existing(path).read_record() or {}
    absent = [name for name in ("config", "weights", "samples") if record.get(name) is None]
    if absent:
        raise ResultsError(f"{path / 'run.json'} lacks {absent[0]}: not a run's record")
    return record


def _existing(path: Path) -> RunFolder:
    if not path.is_dir():
        raise ResultsError(f"{path} is not a folder; give the folder that lmd evaluate wrote")
    if not os.path.lexists(path / "run.json"):
        nested = sorted(str(record.parent) for record in path.glob("*/run.json"))
        hint = f"; there are: {', '.join(nested)}" if nested else ""
        raise ResultsError(
            f"{path} holds no run.json, so it is not the folder of an evaluation{hint}. "
            "Make one with: lmd evaluate --config CONFIG --output DIR"
        )
    return RunFolder(path)


def _record(folder: RunFolder) -> dict[str, Any]:
    record = folder.read_record() or {}
    _require_evaluation(record, folder.path)
    config = record.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not _names(model.get("modalities")):
        raise ResultsError(f"{folder.file('run.json')} names no modalities: not a run's record")
    if not _names(record["config"].get("variants")):
        raise ResultsError(f"{folder.file('run.json')} names no variants: not a run's record")
    for key in ("rows", "perturbed"):
        if key in record and not _names(record[key]):
            raise ResultsError(f"{folder.file('run.json')}: {key} is no list of names")
    if not isinstance(record["config"].get("data", {}), dict):
        raise ResultsError(f"{folder.file('run.json')}: config.data is no mapping")
    absent = [name for name in ("weights", "samples", "schedule") if record.get(name) is None]
    if absent:
        raise ResultsError(f"{folder.file('run.json')} lacks {absent[0]}: not a run's record")
    return record


def _require_evaluation(record: dict[str, Any], path: Path) -> None:
    """Refuses another command's run, whose rows are none of an evaluation's."""
    command = record.get("command")
    name = command.get("name") if isinstance(command, dict) else None
    if name in ("detect", "sanity", "score") and record.get("schedule") is None:
        raise ResultsError(
            f"{path} is a run of lmd {name}; give the folder that lmd evaluate wrote"
        )


def _names(value: Any) -> bool:
    """Whether it is a list of different names, no more than anybody has."""
    named = isinstance(value, list) and all(isinstance(v, str) for v in value)
    return named and 0 < len(set(value)) == len(value) <= _MOST_NAMES


def _pairs(folder: RunFolder, expected: int) -> pd.DataFrame:
    """The finished samples' rows of ``pairs.csv``."""
    path = folder.file("pairs.csv")
    try:
        pairs = read_pairs(path).iloc[:expected]
    except FileNotFoundError:
        raise ResultsError(f"{path} not found: the run has not measured anything yet") from None
    if len(pairs) < expected:
        raise ResultsError(
            f"{path} has {len(pairs)} of the {expected} rows that samples.csv counts; "
            "run lmd evaluate again"
        )
    return pairs


def _notes(folder: RunFolder) -> list[str]:
    try:
        text = read_own(folder.file("notes.txt")).decode(errors="replace")
    except FileNotFoundError:
        return []
    return text.removesuffix("\n").split("\n")


def sequence_of(frame: pd.DataFrame) -> tuple[list[str], Sequence[Sequence[Any]]]:
    """Header and rows of a table."""
    return [str(name) for name in frame.columns], frame.to_numpy().tolist()
