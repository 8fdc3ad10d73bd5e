"""``detections.csv`` and ``detection_values.csv``: from the finished samples, and read again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmd_cli.errors import ResultsError
from lmd_cli.evaluation.detections.parts import SENSES, senses
from lmd_cli.networks.detections import BOX_COLUMNS
from lmd_cli.runtime.files import format_value, read_own, read_text

#: Of the detection, without those of the parts.
FACTS = (
    *("kind", "class", "score", "outcome", "distance", "speed", "closeness"),
    *("annotation", "instance", "category", "visibility", "num_lidar_pts", "num_radar_pts"),
)
SAMPLE_FACTS = ("sample", "scene", "rain", "night")
PLACE = ("output", "channel", "cells", "row", "column")
VALUE_FIELDS = ("detection", "sample", "class", "value", "method", "part", "amount")
#: Columns that hold text, also where it looks like a number.
TEXTS = frozenset(
    (
        *("sample", "scene", "kind", "class", "outcome", "annotation"),
        "instance",
        "category",
        "output",
    )
)
Row = dict[str, Any]


@dataclass(frozen=True)
class PartColumns:
    """Which methods' parts there are, and whose.

    Attributes:
        methods: names of variants and methods; each has its own columns ``METHOD.PART``.
        parts: names of the parts.
        sensors: those of them that are sensors'.
    """

    methods: Sequence[str]
    parts: Sequence[str]
    sensors: Sequence[str]

    def fields(self) -> tuple[str, ...]:
        """The header of ``detections.csv``."""
        own = [f"{m}.{name}" for m in self.methods for name in (*self.parts, *SENSES)]
        facts = (*SAMPLE_FACTS, *FACTS, *BOX_COLUMNS, "match")
        return ("detection", *facts, *PLACE, "logit", *own)


def detection_rows(
    entries: Iterable[Mapping[str, Any]],
    columns: PartColumns,
    threshold_of: Any,
) -> Iterator[Sequence[Any]]:
    """``detections.csv`` with its header: every box above the threshold, every annotation.

    Args:
        entries: the finished samples.
        columns: the parts'.
        threshold_of: from the name of an output to what a detection exceeds there.
    """
    yield columns.fields()
    number = 0
    for entry in entries:
        shared = [entry[name] for name in SAMPLE_FACTS]
        for offset, one in enumerate(entry["detections"]):
            other = one["other"]
            place = one["place"] or [None] * 5
            yield (
                number + offset,
                *shared,
                *(one[name] for name in FACTS),
                *one["box"],
                None if other is None else number + other,
                *place,
                one.get("logit"),
                *_parts(one, columns, threshold_of),
            )
        number += len(entry["detections"])


def _parts(one: Mapping[str, Any], columns: PartColumns, threshold_of: Any) -> Iterator[Any]:
    for method in columns.methods:
        values = one.get("parts", {}).get(method)
        if values is None:
            yield from [None] * (len(columns.parts) + len(SENSES))
            continue
        yield from (values.get(name) for name in columns.parts)
        said = senses(values, columns.sensors, threshold_of(one["place"][0]))
        yield from (said[name] for name in SENSES)


def value_rows(entries: Iterable[Mapping[str, Any]]) -> Iterator[Sequence[Any]]:
    """``detection_values.csv`` with its header: what the other heads say of each detection, and
    each method's parts of that."""
    yield VALUE_FIELDS
    number = 0
    for entry in entries:
        for one in entry["detections"]:
            for name, value in one.get("values", {}).items():
                known = (number, entry["sample"], one["class"], name)
                yield (*known, "", "total", value["total"])
                for method, parts in value["parts"].items():
                    yield from ((*known, method, part, x) for part, x in parts.items())
            number += 1


def read_detections(path: Path) -> list[Row]:
    """The rows of a ``detections.csv``; empty cells are ``None``.

    Raises:
        ResultsError: it is not there, or none that this version wrote.
    """
    try:
        with io.StringIO(read_own(path).decode(), newline="") as file:
            header, *rows = csv.reader(file)
        expected = PartColumns((), (), ()).fields()
        if header[: len(expected)] != [format_value(name) for name in expected]:
            raise ValueError(f"its columns are not {', '.join(expected[:4])}, ...")
        return [
            {name: _value(name, text) for name, text in zip(header, row, strict=True)}
            for row in rows
        ]
    except FileNotFoundError:
        raise ResultsError(f"{path} does not exist; lmd detect writes it") from None
    except (ValueError, csv.Error) as error:
        raise ResultsError(
            f"{path} is damaged ({error}); the same lmd detect writes it again"
        ) from None


def _value(column: str, text: str) -> Any:
    if column in TEXTS or column.rpartition(".")[2] in SENSES:
        return read_text(text)
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else float(text)
