"""A table of the paper as CSV, Markdown and LaTeX: rounding, arrows, best cells marked."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from lmd_cli.evaluation.comparisons import Comparison
from lmd_cli.report.tables.spec import Metric, TableSpec
from lmd_cli.results.digits import figure_text, largest
from lmd_cli.results.summary import mean_and_deviation

TITLES = {"pcc": "Pearson Correlation", "mse": "Mean Squared Error"}
_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "✓": r"$\checkmark$",
    "√": r"$\surd$",
    "^": r"\textasciicircum{}",
}
#: Of float32 results, what differs by less is equal.
EQUAL = 1e-6
#: Mean and standard deviation by row, metric and column title.
Figures = Mapping[tuple[str, str, str], tuple[float, float]]


@dataclass(frozen=True)
class Entry:
    """One cell's text, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A finished table.

    Attributes:
        caption: one line.
        groups: names and widths of the groups of columns, the labels' first with an empty name.
        header: of every column.
        rows: labels and entries.
        notes: below it.
    """

    caption: str
    groups: list[tuple[str, int]]
    header: list[str]
    rows: list[list[Entry]]
    notes: list[str]


@dataclass(frozen=True)
class Column:
    """One column of figures."""

    metric: Metric
    title: str
    lower_is_better: bool

    @property
    def heading(self) -> str:
        """``R_p/R (↓)``."""
        return f"{self.title} ({'↓' if self.lower_is_better else '↑'})"


def modality_label(modalities: Sequence[str]) -> str:
    """``Radar + Camera``, the camera last as in the paper."""
    names = {"lidar": "LiDAR", "camera": "Camera", "radar": "Radar"}
    ordered = sorted(modalities, key=lambda name: (name == "camera",))
    return " + ".join(names.get(name, name) for name in ordered)


def columns_of(spec: TableSpec, cells: Sequence[Comparison]) -> list[Column]:
    """A replaced sensor should change (low PCC, high MSE), a kept one should not."""
    return [
        Column(metric, cell.title, (cell.expected == "change") == (metric == "pcc"))
        for metric in spec.metrics
        for cell in cells
    ]


def figures_of(
    metrics: pd.DataFrame, cells: Sequence[Comparison]
) -> dict[tuple[str, str, str], tuple[float, float]]:
    """From ``metrics.csv``'s columns."""
    titles = {(cell.perturbed_name, cell.target): cell.title for cell in cells}
    values = {}
    for row in metrics.to_dict("records"):
        title = titles.get((row["perturbed"], row["target"]))
        for metric in ("pcc", "mse"):
            if title is not None:
                values[str(row["variant"]), metric, title] = mean_and_deviation(row, metric)
    return values


def lay_out(
    spec: TableSpec,
    figures: Figures,
    columns: Sequence[Column],
    caption: str,
    notes: Sequence[str],
    model: str,
) -> Table:
    """Rounds, and marks the best of each column, ties too.

    The best are found by the numbers, not as they are shown; those within :data:`EQUAL` of the
    best, which rounding errors tell apart, count as ties.

    Args:
        spec: rows and layout.
        figures: mean and deviation of every cell; what is missing stays empty.
        columns: from :func:`columns_of`.
        caption, notes: text around the table.
        model: what the modality column says, where the paper has one.
    """
    places, first = spec.decimals, [model] if spec.names_modalities else []
    asked = [[figures.get((row.name, c.metric, c.title)) for row in spec.rows] for c in columns]
    errors = zip(columns, asked, strict=True)
    scale = {"pcc": math.inf}
    scale["mse"] = largest(f[0] for c, each in errors if c.metric == "mse" for f in each if f)
    entries = [
        _column(values, column.lower_is_better, places, scale[column.metric])
        for column, values in zip(columns, asked, strict=True)
    ]
    titles = [*(["Modality"] if first else []), *spec.headers]
    groups = [("", len(titles))]
    groups += [
        (TITLES[m], sum(c.metric == m for c in columns))
        for m in dict.fromkeys(c.metric for c in columns)
    ]
    rows = [
        [*map(Entry, (*first, *row.labels)), *(column[i] for column in entries)]
        for i, row in enumerate(spec.rows)
    ]
    header = [*titles, *(column.heading for column in columns)]
    return Table(caption, groups, header, rows, list(notes))


def _column(
    values: Sequence[tuple[float, float] | None],
    lower: bool,
    places: tuple[int, int],
    scale: float,
) -> list[Entry]:
    figures = [None if f is None or math.isnan(f[0]) else f for f in values]
    known = [f[0] for f in figures if f is not None]
    best = (min if lower else max)(known, default=math.nan)
    near = EQUAL * max(map(abs, known), default=0.0)
    return [
        Entry("")
        if f is None
        else Entry(figure_text(*f, places, scale), len(known) > 1 and abs(f[0] - best) <= near)
        for f in figures
    ]


# -- writing ------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """Two header lines; the best cells end with ``*``."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([name for name, width in table.groups for _ in range(width)])
    writer.writerow(table.header)
    writer.writerows([[e.text + ("*" if e.best else "") for e in row] for row in table.rows])
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    """GitHub's flavour; the group stands in each column's title, the best cells are bold."""
    names = [name for name, width in table.groups for _ in range(width)]
    short = {TITLES["pcc"]: "PCC ", TITLES["mse"]: "MSE "}
    header = [short.get(n, "") + h for n, h in zip(names, table.header, strict=True)]
    lines = [
        f"**{table.caption}**",
        "",
        _markdown_row(header),
        _markdown_row(["---"] * len(header)),
    ]
    for row in table.rows:
        lines.append(_markdown_row([f"**{e.text}**" if e.best else e.text for e in row]))
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def to_latex(table: Table) -> str:
    r"""A ``table`` with booktabs; needs ``\usepackage{booktabs,amssymb}``."""
    labels = table.groups[0][1]
    alignment = "l" * labels + "c" * (len(table.header) - labels)
    groups = " & ".join(
        rf"\multicolumn{{{width}}}{{{'l' if not name else 'c'}}}{{{_latex(name)}}}"
        for name, width in table.groups
    )
    body = [" & ".join(_latex_entry(e) for e in row) + r" \\" for row in table.rows]
    lines = [
        *(f"% {note}" for note in table.notes),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        groups + r" \\",
        " & ".join(map(_latex_heading, table.header)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    return "".join(_ESCAPES.get(c, c) for c in text)


def _latex_heading(text: str) -> str:
    """``C_pR_p/L (↑)`` as mathematics."""
    arrows = {"(↓)": r"(\downarrow)", "(↑)": r"(\uparrow)"}
    title, _, arrow = text.rpartition(" ")
    if arrow not in arrows:
        return _latex(text)
    return f"${_latex_title(title)}\\ {arrows[arrow]}$"


def _latex_title(title: str) -> str:
    """Letters with a subscript stay; longer names are upright."""
    return "".join(
        part if len(part) <= 1 or part == "_p" else rf"\mathrm{{{_latex(part)}}}"
        for part in _parts(title)
    )


def _parts(title: str) -> list[str]:
    return re.findall(r"_p|/|[A-Za-z]+?(?=_p|/|$|[A-Z]_p)|.", title)


def _latex_entry(entry: Entry) -> str:
    text = _latex(entry.text).replace("±", r"$\pm$")
    return rf"\textbf{{{text}}}" if entry.best else text


WRITERS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
