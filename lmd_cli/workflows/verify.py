"""``lmd verify``: are a run's results what its record says, and do they come out again?"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lmd_cli.config.schema import RunConfig
from lmd_cli.data.content import file_sha256
from lmd_cli.evaluation.comparisons import measured_comparisons, table_comparisons
from lmd_cli.results.finished import FinishedSamples, without_times
from lmd_cli.results.pair_rows import Stretch
from lmd_cli.results.provenance import edited, read_data_hashes
from lmd_cli.results.read_run import existing_record
from lmd_cli.results.record import code_revisions, differences, package_versions, processor
from lmd_cli.results.summary import paper_table, read_pairs, summarise
from lmd_cli.results.survey_files import edited_survey
from lmd_cli.runtime.files import csv_lines, is_inside, read_own
from lmd_cli.runtime.progress import Progress, Silent
from lmd_cli.workflows.check_data import Checks
from lmd_cli.workflows.evaluate import measured_again
from lmd_cli.workflows.ready import Ready, make_ready
from lmd_cli.workflows.recorded_run import (
    Whereabouts,
    differing,
    require_known_targets,
    run_config,
)
from lmd_cli.workflows.report import SURVEY
from lmd_cli.workflows.rerun import EvaluateCommand, RecordedCommand, recorded_command
from lmd_cli.workflows.setup import Run, prepare

#: How far numbers of another processor or version may be from the recorded ones.
LIMIT = 1e-3


def verify(
    path: Path,
    where: Whereabouts | None = None,
    *,
    samples: int = 3,
    compute: bool = True,
    progress: Progress | None = None,
) -> Checks:
    """Checks a run's folder; goes on after a failure with what does not depend on it.

    Args:
        path: the folder of ``lmd evaluate``, ``score``, ``sanity`` or ``detect``.
        where: data, weights and code, if not where they were.
        samples: how many samples are computed again: of an evaluation evenly spread, else the
            first.
        compute: open data and network; else only the folder is looked at.

    Raises:
        ResultsError: not a run's folder.
        ConfigError: a target that nobody vouches for.
    """
    where, progress, checks = where or Whereabouts(), progress or Silent(), Checks()
    record = existing_record(path)
    if compute:
        require_known_targets(path, record, where)
    _status(checks, record)
    _results(checks, path, record)
    if "schedule" in record:
        checks.attempt("tables", lambda: _tables(checks, path, record))
        checks.attempt("survey", lambda: _survey(checks, path / SURVEY))
    if compute:
        checks.attempt("network", lambda: _network(checks, path, record, where, samples, progress))
    return checks


def _status(checks: Checks, record: Mapping[str, Any]) -> None:
    status = record.get("status", "")
    if status == "finished":
        checks.add("status", True, "finished")
    elif status == "unfinished":
        checks.add("status", False, "unfinished: the same command goes on from there")
    else:
        checks.note("status", status)


def _results(checks: Checks, path: Path, record: Mapping[str, Any]) -> None:
    """Result files, and finished samples, against the hashes in ``run.json``."""
    recorded = record.get("files") or {}
    if not recorded:
        checks.note("result files", "run.json has no hashes of them")
        return
    different = [f"{name} {what}" for name, what in edited(path, record).items()]
    said = f"{len(recorded)} files are as they were written"
    checks.add("result files", not different, ", ".join(different) or said)
    if entries := record.get("entries"):
        same = FinishedSamples(path).entries_sha256(entries["count"]) == entries["sha256"]
        said = f"{entries['count']} entries are {'' if same else 'not '}as they were written"
        checks.add("finished samples", same, said)


def _tables(checks: Checks, path: Path, record: Mapping[str, Any]) -> None:
    """``metrics.csv`` and ``table.csv`` made again from ``pairs.csv``."""
    config = record["config"]
    modalities = config["model"]["modalities"]
    shown = table_comparisons(modalities)
    compared = shown if "perturbed" in record else measured_comparisons(modalities)
    rows = record.get("rows", config["variants"])
    metrics = summarise(read_pairs(path / "pairs.csv"), rows, compared)
    frames = {"metrics.csv": metrics, "table.csv": paper_table(metrics, shown)}
    different = [
        name
        for name, frame in frames.items()
        if read_own(path / name)
        != csv_lines([list(frame.columns), *frame.itertuples(index=False, name=None)])
    ]
    said = "they follow from pairs.csv"
    names = " and ".join(different)
    checks.add("tables", not different, f"not from pairs.csv: {names}" if different else said)


def _survey(checks: Checks, folder: Path) -> None:
    """The files of ``lmd report``'s survey, against the hashes in ``survey.json``."""
    try:
        count, different = edited_survey(folder)
    except FileNotFoundError:
        checks.note("survey", "none: lmd report has not made one")
        return
    if not count:
        checks.note("survey", "survey.json has no hashes of its files; lmd report --no-resume")
        return
    said = ", ".join(f"{name} {what}" for name, what in different.items())
    checks.add("survey", not different, said or f"{count} files are as they were written")


def _network(
    checks: Checks,
    path: Path,
    record: Mapping[str, Any],
    where: Whereabouts,
    samples: int,
    progress: Progress,
) -> None:
    """Data, weights and code, then samples computed again."""
    config = run_config(path, record, where)
    ready = make_ready(config, None, progress)
    _data(checks, path, ready)
    problems = differing(ready, record)
    said = "weights, samples and the first samples' outputs are the recorded ones"
    checks.add("network", not problems, "; ".join(problems) or said)
    here = {
        "processor": processor(ready.device),
        "versions": dict(package_versions()),
        "code": code_revisions(config),
    }
    others = differences({key: record.get(key) for key in here}, here)
    if others:
        checks.note("environment", "\n".join(others))
    command = recorded_command(path, record)
    if not isinstance(command, EvaluateCommand):
        again = partial(_entries, checks, path, config, command, samples, bool(others), progress)
        checks.attempt("samples", again)
        return
    how = (command.methods, command.relinearise, command.table_only)
    run = prepare(config, progress, *how, recorded=record)
    checks.attempt("samples", lambda: _samples(checks, path, run, samples, bool(others), progress))


def _data(checks: Checks, path: Path, ready: Ready) -> None:
    """Data files against ``data.sha256``."""
    listed = read_data_hashes(path)
    root = ready.dataset.dataroot
    if not listed or root is None:
        checks.note("data files", "no hashes of them were noted")
        return
    different = [name for name, value in listed.items() if _hash(root, name) != value]
    first = f"{len(different)} of {len(listed)} differ: {', '.join(different[:3])}"
    said = f"{len(listed)} hashed files are the same"
    checks.add("data files", not different, first if different else said)


def _hash(root: Path, name: str) -> str | None:
    """Of a file inside the root; a list from elsewhere may name others."""
    return file_sha256(root / name) if is_inside(name) else None


def _samples(
    checks: Checks, path: Path, run: Run, count: int, elsewhere: bool, progress: Progress
) -> None:
    """Some samples' rows of ``pairs.csv``, measured again."""
    stretch = Stretch(path)
    rows = stretch.finished()
    chosen = _spread([i for i, row in enumerate(rows) if _whole(row)], count)
    if not chosen:
        checks.note("samples", "none was measured with all its partners")
        return
    starts = _starts(rows)
    progress.start(len(chosen), "verify")
    worst, exact = 0.0, True
    try:
        for position, measured in zip(chosen, measured_again(run, chosen), strict=True):
            there = stretch.pairs.read(starts[position], starts[position + 1])
            here = csv_lines(measured.pairs)
            exact = exact and there == here
            worst = max(worst, _distance(there, here))
            progress.advance(note=f"sample {rows[position]['sample_token']}")
    finally:
        progress.close()
    _judge(checks, len(chosen), worst, exact, elsewhere, "of a PCC, or of an MSE's size")


def _entries(
    checks: Checks,
    path: Path,
    config: RunConfig,
    command: RecordedCommand,
    count: int,
    elsewhere: bool,
    progress: Progress,
) -> None:
    """The first finished samples of another command, computed again into a folder that goes."""
    there = [without_times(entry) for entry in FinishedSamples(path).entries(count)]
    with TemporaryDirectory() as scratch:
        shorter = command.model_copy(update={"limit": len(there)})
        shorter.run(config, Path(scratch) / "again", progress=progress)
        done = FinishedSamples(Path(scratch) / "again").entries(len(there))
        here = [without_times(entry) for entry in done]
    worst = largest_difference(there, here)
    _judge(checks, len(there), worst, there == here, elsewhere, "of a number, or of 1")


def _whole(row: Mapping[str, str]) -> bool:
    """Whether a sample was measured with all its partners."""
    return row["status"] == "ok" and not row["missing_partners"]


def _spread(positions: Sequence[int], count: int) -> list[int]:
    """So many of some positions, evenly spread."""
    every = len(positions)
    return sorted({positions[k * every // count] for k in range(count)}) if positions else []


def _judge(checks: Checks, count: int, worst: float, exact: bool, elsewhere: bool, of: str) -> None:
    """Other processors and versions round otherwise; the same give the same bytes."""
    if exact:
        checks.add("samples", True, f"{count} computed again: the same to the last digit")
        return
    said = f"{count} computed again: largest difference {worst:.1e} {of}"
    if elsewhere:
        checks.add("samples", worst <= LIMIT, f"{said}, limit {LIMIT:.0e}")
        return
    checks.add("samples", False, f"{said}; expected none on the same processor and versions")


def _starts(rows: Sequence[Mapping[str, str]]) -> list[int]:
    """For each sample the number of its first row of ``pairs.csv``, and of the one behind all."""
    return list(accumulate((int(row["pairs"]) for row in rows), initial=0))


def _distance(there: bytes, here: bytes) -> float:
    """Largest difference between two lists of rows; infinite if they are not of the same pairs."""
    old, new = (list(csv.reader(lines.decode().splitlines())) for lines in (there, here))
    if [row[:-2] for row in old] != [row[:-2] for row in new]:
        return math.inf
    return max((_row_distance(a, b) for a, b in zip(old, new, strict=True)), default=0.0)


def _row_distance(there: Sequence[str], here: Sequence[str]) -> float:
    if there[-2:] == here[-2:]:
        return 0.0
    try:
        (pcc, mse), (other_pcc, other_mse) = ([float(x) for x in r[-2:]] for r in (there, here))
    except ValueError:  # a PCC that is not defined in one of them
        return math.inf
    return max(abs(pcc - other_pcc), abs(mse - other_mse) / max(mse, other_mse, 1e-12))


def largest_difference(there: Any, here: Any) -> float:
    """Of the numbers of two JSON values, relative to the larger one or 1; infinite if anything else
    differs."""
    if isinstance(there, dict) and isinstance(here, dict) and there.keys() == here.keys():
        return max((largest_difference(there[k], here[k]) for k in there), default=0.0)
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        return max(map(largest_difference, there, here), default=0.0)
    if isinstance(there, float) and isinstance(here, float):
        same = there == here or (math.isnan(there) and math.isnan(here))
        return 0.0 if same else abs(there - here) / max(abs(there), abs(here), 1.0)
    return 0.0 if there == here else math.inf
