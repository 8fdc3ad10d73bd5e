"""``lmd table``: the paper's tables for the model at hand, out of one pass over the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from lmd_cli.config.schema import RunConfig
from lmd_cli.errors import MethodError
from lmd_cli.evaluation.comparisons import table_comparisons
from lmd_cli.report.tables import costs
from lmd_cli.report.tables.beside import beside
from lmd_cli.report.tables.published import paper_tables
from lmd_cli.report.tables.render import (
    WRITERS,
    Table,
    columns_of,
    figures_of,
    lay_out,
    modality_label,
)
from lmd_cli.report.tables.spec import TABLES, TableSpec, refusal, with_variants
from lmd_cli.runtime.files import disk_errors, write_atomically
from lmd_cli.workflows.costs import measure_costs
from lmd_cli.workflows.evaluate import Progress, evaluate
from lmd_cli.workflows.finish import RunSummary
from lmd_cli.workflows.inspect import network_attends


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
    known = sorted((*TABLES, costs.PASSES, costs.LRP_OR_LMD))
    if text == "all":
        return known
    if text.isdigit() and int(text) in known:
        return [int(text)]
    listed = ", ".join(map(str, known))
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
        config: data, network, protocol; its variants that the paper has not are further rows of
            the tables of variants (2, 8, 9, 10).
        numbers: of the tables.
        folder: ``run/`` holds the evaluation, beside it each table as CSV, Markdown and LaTeX, the
            paper's own figures, and both in one table (``tableN_beside``) where they share columns.
        strict: a table that does not apply is an error; else it is left out.
        limit, resume, overwrite, progress: as in ``evaluate``.

    Raises:
        MethodError: a table that does not apply to the model, with the reason.
        LmdError: what ``evaluate`` raises.
    """
    reasons = refusals(numbers, config)
    fitting = [number for number in numbers if number in TABLES and number not in reasons]
    wanted = [with_variants(TABLES[number], config.variants) for number in fitting]
    if reasons and strict:
        raise MethodError(_refused(reasons, config))
    measured = _measured_tables(numbers, config, reasons, strict)
    if not wanted:
        return Reproduced(measured, _write_all(measured, folder), reasons)
    run = evaluate(
        config,
        folder / "run",
        methods=table_methods(fitting, config.variants),
        table_only=True,
        limit=limit,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    )
    tables = measured | {spec.number: _table(spec, config, run) for spec in wanted}
    tables = dict(sorted(tables.items()))
    return Reproduced(tables, _write_all(tables, folder), reasons, run)


def _measured_tables(
    numbers: Sequence[int], config: RunConfig, reasons: dict[int, str], strict: bool
) -> dict[int, Table]:
    """Tables 3 and 11, from one measurement; what cannot be measured goes to ``reasons``."""
    makers = {costs.PASSES: costs.cost_table, costs.LRP_OR_LMD: costs.comparison_table}
    wanted = [number for number in numbers if number in makers]
    if not wanted:
        return {}
    try:
        measured = measure_costs(config)
    except MethodError as error:
        if strict:
            raise
        reasons |= {number: f"table {number}: {error}" for number in wanted}
        return {}
    return {number: makers[number](measured, config.name) for number in wanted}


def table_methods(numbers: Sequence[int], variants: Sequence[str] = ()) -> list[str]:
    """The methods that the tables' rows show, each once, with further ones of ``variants``."""
    tables = [with_variants(TABLES[number], variants) for number in numbers]
    return list(dict.fromkeys(row.method for table in tables for row in table.rows))


def refusals(numbers: Sequence[int], config: RunConfig) -> dict[int, str]:
    """Why tables do not apply to the config's model, of those that do not."""
    specs = [TABLES[number] for number in numbers if number in TABLES]
    attends = cache(partial(network_attends, config))
    why = {spec.number: refusal(spec, config.model.modalities, attends) for spec in specs}
    return {number: reason for number, reason in why.items() if reason is not None}


def _refused(reasons: dict[int, str], config: RunConfig) -> str:
    fitting = set(TABLES) - set(refusals(list(TABLES), config))
    listed = ", ".join(map(str, sorted((*fitting, costs.PASSES, costs.LRP_OR_LMD))))
    return f"{'; '.join(reasons.values())}. Tables for this model: {listed}"


def _table(spec: TableSpec, config: RunConfig, run: RunSummary) -> Table:
    modalities = config.model.modalities
    columns = columns_of(spec, spec.cells(modalities))
    figures = figures_of(run.metrics, table_comparisons(modalities))
    caption = f"Table {spec.number} for {config.name}: {spec.title}"
    notes = [*run.notes, *spec.notes]
    return lay_out(spec, figures, columns, caption, notes, modality_label(modalities))


def _write_all(tables: dict[int, Table], folder: Path) -> list[Path]:
    """Each table in every format, the paper's own, and both in one."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, str] = {}
    for number, table in tables.items():
        papers = (
            paper_tables(TABLES[number]) if number in TABLES else costs.paper_cost_tables(number)
        )
        both = beside(table, papers)
        for kind, write in WRITERS.items():
            texts[f"table{number}.{kind}"] = write(table)
            texts[f"table{number}_paper.{kind}"] = "\n".join(map(write, papers))
            if both is not None:
                texts[f"table{number}_beside.{kind}"] = write(both)
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in texts]
