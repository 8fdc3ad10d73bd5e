"""``lmd table``: the paper's tables for the model at hand, out of one pass over the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmd_cli.config import CRNConfig, RunConfig
from lmd_cli.errors import MethodError
from lmd_cli.evaluation import RunSummary, evaluate
from lmd_cli.evaluation.cells import table_cells
from lmd_cli.evaluation.results import write_atomically
from lmd_cli.evaluation.runner import Progress
from lmd_cli.report.layout import WRITERS, Table, columns_of, figures_of, lay_out, modality_label
from lmd_cli.report.paper_figures import paper_tables
from lmd_cli.report.tables import TABLES, TableSpec, refusal


@dataclass(frozen=True)
class Reproduced:
    """What ``lmd table`` made.

    Attributes:
        tables: the model's, by the paper's numbers.
        files: what was written.
        left_out: for ``all``, why a table does not apply.
        run: the evaluation behind them.
    """

    tables: dict[int, Table]
    files: list[Path]
    left_out: dict[int, str] = field(default_factory=dict)
    run: RunSummary | None = None


def table_numbers(text: str) -> list[int]:
    """The tables that the command line means.

    Raises:
        MethodError: no such table.
    """
    if text == "all":
        return list(TABLES)
    if text.isdigit() and int(text) in TABLES:
        return [int(text)]
    listed = ", ".join(map(str, TABLES))
    raise MethodError(f"there is no table {text!r} to make: choose one of {listed}, or all")


def reproduce(
    config: RunConfig,
    numbers: Sequence[int],
    folder: Path,
    *,
    strict: bool = True,
    limit: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Reproduced:
    """Makes the paper's tables for the config's model and data.

    One pass over the data serves the rows of all of them; it goes on from a run that was cut off.

    Args:
        config: data, network, protocol; its variants are not used.
        numbers: of the tables.
        folder: ``run/`` holds the evaluation, beside it each table as CSV, Markdown and LaTeX, and
            the paper's own figures.
        strict: a table that does not apply is an error; else it is left out.
        limit, resume, overwrite, progress: as in ``evaluate``.

    Raises:
        MethodError: a table that does not apply to the model, with the reason.
        LmdError: what ``evaluate`` raises.
    """
    specs = [TABLES[number] for number in numbers]
    reasons = {spec.number: why for spec in specs if (why := _refusal(spec, config)) is not None}
    wanted = [spec for spec in specs if spec.number not in reasons]
    if reasons and (strict or not wanted):
        raise MethodError(_refused(reasons, config))
    run = evaluate(
        config,
        folder / "run",
        methods=list(dict.fromkeys(row.method for spec in wanted for row in spec.rows)),
        limit=limit,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    )
    tables = {spec.number: _table(spec, config, run) for spec in wanted}
    files = [path for spec in wanted for path in _write(spec, tables[spec.number], folder)]
    return Reproduced(tables, files, reasons, run)


def _refusal(spec: TableSpec, config: RunConfig) -> str | None:
    return refusal(spec, config.model.modalities, isinstance(config.model, CRNConfig))


def _refused(reasons: dict[int, str], config: RunConfig) -> str:
    fitting = [number for number, spec in TABLES.items() if _refusal(spec, config) is None]
    listed = ", ".join(map(str, fitting))
    return f"{'; '.join(reasons.values())}. Tables for this model: {listed}"


def _table(spec: TableSpec, config: RunConfig, run: RunSummary) -> Table:
    modalities = config.model.modalities
    columns = columns_of(spec, spec.cells(modalities))
    figures = figures_of(run.metrics, table_cells(modalities))
    caption = f"Table {spec.number} for {config.name}: {spec.title}"
    notes = [*run.notes, *spec.notes]
    return lay_out(spec, figures, columns, caption, notes, modality_label(modalities))


def _write(spec: TableSpec, table: Table, folder: Path) -> list[Path]:
    """The table in every format, and the paper's own."""
    stem = f"table{spec.number}"
    found: list[tuple[str, Any]] = [
        (f"{stem}.{kind}", write(table)) for kind, write in WRITERS.items()
    ]
    papers = paper_tables(spec)
    for kind, write in WRITERS.items():
        found.append((f"{stem}_paper.{kind}", "\n".join(map(write, papers))))
    for name, text in found:
        write_atomically(folder / name, text.encode())
    return [folder / name for name, _ in found]
