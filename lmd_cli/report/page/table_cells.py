"""The page's tables: cells with the text to show and the value to sort by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
#: Characters of a word that is not torn.
LONGEST = 31


@dataclass(frozen=True)
class TableCell:
    """``value`` is what the column is sorted by, the text if none; on press ``sample`` is shown,
    and in it ``object``, by its place among the sample's."""

    text: str
    value: str | None = None
    number: bool = False
    sample: int | None = None
    object: int | None = None

    @property
    def long(self) -> bool:
        """Whether a word, such as a token or a hash, may be torn."""
        return any(len(word) > LONGEST for word in self.text.split())


@dataclass(frozen=True)
class PageTable:
    """A table with an identifier of the page's own making; ``slots``: colours of headers."""

    name: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    slots: Mapping[str, int] = field(default_factory=dict)


def page_table(
    name: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[Any]]
) -> PageTable:
    """Plain values to cells."""
    return PageTable(name, caption, header, _cells(header, rows))


def _cells(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[TableCell]]:
    return [[cell(value) for _, value in zip(header, row, strict=True)] for row in rows]


def cell(value: Any) -> TableCell:
    """Numbers to five digits, sorted by all of them; ``0.05 ± 0.02`` sorted by its mean."""
    if value is None or value != value:
        return TableCell("", "", number=True)
    if isinstance(value, bool | str):
        mean, plus, _ = str(value).partition(" ± ")
        if plus and _NUMBER.fullmatch(mean):
            return TableCell(str(value), mean, number=True)
        return TableCell(str(value))
    if isinstance(value, int):
        return TableCell(str(value), str(value), number=True)
    return TableCell(f"{float(value):.5g}", repr(float(value)), number=True)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as (dotted key, text)."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            listed = ", ".join(map(str, value)) if isinstance(value, list) else value
            rows.append((f"{prefix}{key}", "" if listed is None else str(listed)))
    return rows
