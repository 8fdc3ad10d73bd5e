"""The verdict of a gate at the top of a page, and the page of a run without a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmd_cli.evaluation.paired import Clusters
from lmd_cli.evaluation.requirements import Outcome
from lmd_cli.report.page.compare import SCRIPTS, fact
from lmd_cli.report.page.document import document, page_margin
from lmd_cli.report.page.table_cells import page_table
from lmd_cli.report.tables.gate import HEADER, outcome_cells
from lmd_cli.report.words import counted
from lmd_cli.results.read_run import RunResults
from lmd_cli.results.verdict import Verdict


def verdict_values(run: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the page's template needs to show the verdict first."""
    missed = sum(not outcome.passed for outcome in outcomes)
    one = len(outcomes) == 1
    every = "its one requirement" if one else f"all {len(outcomes)} requirements"
    some = "its one requirement" if one else f"{missed} of {len(outcomes)} requirements"
    words = f"{run} misses {some}" if missed else f"{run} meets {every}"
    header = [*HEADER, "reason"]
    rows = [[*outcome_cells(outcome), outcome.reason] for outcome in outcomes]
    return {
        "passed": not missed,
        "words": f"{'Passed' if not missed else 'Failed'}: {words}.",
        "table": page_table("requirements", "Requirements", header, rows),
        "stale": "",
    }


def recorded_verdict(run: RunResults, verdict: Verdict | None) -> dict[str, Any] | None:
    """:func:`verdict_values` of what ``lmd gate`` wrote into the run's folder, if it did."""
    if verdict is None:
        return None
    values = verdict_values(run.path.resolve().name, verdict.outcomes)
    against = "" if verdict.baseline is None else f" Baseline: {verdict.baseline}."
    values["words"] += against
    if verdict.changed:
        values["passed"] = False
        values["stale"] = (
            "Out of date: this verdict of lmd gate is about other results; "
            f"{', '.join(verdict.changed)} changed since. Run the same lmd gate again."
        )
    return values


def gate_page(
    run: RunResults, clusters: Clusters, verdict: dict[str, Any], notes: Sequence[str]
) -> bytes:
    """The page as UTF-8 bytes, of a run that was compared with numbers alone."""
    render = document("compare.html.j2", SCRIPTS, page_margin([run]))
    checkpoint = str(run.record.get("checkpoint", ""))
    return render(
        title=verdict["words"],
        heading="Does the run pass?",
        subtitle=f"Run {run.path.resolve().name}; checkpoint {checkpoint}",
        verdict=verdict,
        notes=notes,
        headlines=[],
        facts=[
            fact("Samples", str(len(run.tokens)), "evaluated"),
            fact("Bootstrap", counted(clusters.count, clusters.kind), "drawn with replacement"),
        ],
        compared=False,
    )
