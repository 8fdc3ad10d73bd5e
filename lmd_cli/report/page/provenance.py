"""From which code, weights and data a page's numbers are, and how to repeat them."""

from __future__ import annotations

from typing import Any

import yaml

from lmd_cli.report.page.table_cells import PageTable, flat, page_table
from lmd_cli.results.provenance import DATA, hashes_of, invocations, read_data_hashes, survey_made
from lmd_cli.results.read_run import RunResults
from lmd_cli.results.survey_files import FILES as SURVEY_FILES

#: Entries of ``run.json`` that are shown.
SHOWN = (
    *("status", "command", "config_sha256", "checkpoint", "weights", "samples", "code"),
    *("schedule", "threads", "device", "processor", "versions", "files"),
)
_STARTED = ("date", "event", "status", "seconds", "command", "machine")


def provenance_values(run: RunResults) -> dict[str, Any]:
    """What the page's template needs for its last section."""
    header = ["position", "sample_token", "status", "pairs", "residual"]
    samples = [[row[name] for name in header] for row in run.samples]
    return {
        "provenance": _record(run),
        "other_code": _other_code(run),
        "started": _started(run),
        "config": yaml.safe_dump(run.record["config"], sort_keys=False, allow_unicode=True),
        "evaluated": page_table("evaluated", "In the order of the walk", header, samples),
    }


def _record(run: RunResults) -> PageTable:
    """The record, and what it does not hold: hashes of data files and of the survey."""
    record = {key: run.record[key] for key in SHOWN if key in run.record}
    survey = hashes_of(run.path, [f"survey/{name}" for name in SURVEY_FILES])
    hashed = read_data_hashes(run.path)
    listed = hashes_of(run.path, [DATA])
    rows = [("run.json sha256", run.sha256), *flat(record)]
    rows += [(f"{DATA} sha256", f"{value}, of {len(hashed)} files") for value in listed.values()]
    rows += [(f"{name} sha256", value) for name, value in survey.items()]
    rows += flat({"survey": survey_made(run.path / "survey")}) if survey else []
    return page_table(
        "record",
        "From run.json, which has the first hash, and of the survey",
        ["entry", "value"],
        rows,
    )


def _other_code(run: RunResults) -> bool:
    """Whether the survey was made by other code than the run, as far as both are recorded."""
    ran = _sha256((run.record.get("code") or {}).get("lmd"))
    surveyed = _sha256(survey_made(run.path / "survey").get("code"))
    return None not in (ran, surveyed) and ran != surveyed


def _sha256(revision: Any) -> Any:
    """Of an entry of a file that anybody may have written."""
    return revision.get("sha256") if isinstance(revision, dict) else None


def _started(run: RunResults) -> PageTable | None:
    """Each start and end, from ``invocations.jsonl``."""
    header = ["date", "event", "status", "seconds", "command line", "machine"]
    rows = [[_text(e.get(key)) for key in _STARTED] for e in invocations(run.path)]
    return page_table("started", "When and where it ran", header, rows) if rows else None


def _text(value: Any) -> str:
    """Of an entry of a file that anybody may have written."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(entry)}" for name, entry in value.items() if entry)
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return "" if value is None else str(value)
