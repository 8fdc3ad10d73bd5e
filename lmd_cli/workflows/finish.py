"""The end of an evaluation: tables, the record and the notes from the rows on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from lmd_cli.attribution.linearised import Relinearised
from lmd_cli.config.schema import is_custom, why_explained
from lmd_cli.decomposition.linearised.replay import largest
from lmd_cli.errors import DataError
from lmd_cli.evaluation.comparisons import table_comparisons
from lmd_cli.evaluation.tolerances import require_within, tolerances_of
from lmd_cli.report.words import counted, words_of
from lmd_cli.results.pair_rows import stretches
from lmd_cli.results.provenance import edited, hashes_of
from lmd_cli.results.reopen import readable_again
from lmd_cli.results.run_folder import FILES, HASHED, RunFolder
from lmd_cli.results.summary import paper_table, read_pairs, summarise
from lmd_cli.runtime.files import csv_lines, write_atomically

if TYPE_CHECKING:
    from lmd_cli.workflows.setup import Run


@dataclass(frozen=True)
class RunSummary:
    """The results of a run.

    Attributes:
        table: the paper's layout.
        metrics: the columns of ``metrics.csv``.
        files: what was written.
        notes: lines that belong under the table.
        record: the contents of ``run.json``.
        computed: whether anything was measured now.
    """

    table: pd.DataFrame
    metrics: pd.DataFrame
    files: list[Path]
    notes: list[str]
    record: dict[str, Any]
    computed: bool = True


def is_complete(
    folder: RunFolder, record: Mapping[str, Any] | None, dataset: Any, last: int
) -> bool:
    """Whether the first ``last`` samples are measured and their tables written, and no sample that
    was skipped can be read by now."""
    whole = (record or {}).get("files") and not edited(folder.path, record)
    if not whole or stretches(folder.path):
        return False
    there = len(folder.finished_samples()) >= last
    return there and not readable_again(folder.path, dataset)


def finished_before(folder: RunFolder) -> RunSummary:
    """The results of a run that :func:`is_complete`, as they were written."""
    tables = {
        name: pd.read_csv(folder.file(name), keep_default_na=False, float_precision="round_trip")
        for name in ("table.csv", "metrics.csv")
    }
    metrics = tables["metrics.csv"].replace("", math.nan).infer_objects()
    lines = folder.file("notes.txt").read_text().splitlines()
    files = [folder.file(name) for name in FILES if folder.file(name).exists()]
    record = folder.read_record() or {}
    return RunSummary(tables["table.csv"], metrics, files, lines, record, computed=False)


def finish(run: Run, folder: RunFolder) -> RunSummary:
    """Tables and ``run.json`` from the rows on disk.

    Raises:
        RunError: rows are not exact (measured before a run stopped at such).
    """
    samples = folder.finished_samples()
    _require_exact(run, samples)
    metrics = summarise(read_pairs(folder.file("pairs.csv")), run.names, run.comparisons)
    table = paper_table(metrics, table_comparisons(run.built.network.modalities))
    for name, frame in (("metrics.csv", metrics), ("table.csv", table)):
        rows = [list(frame.columns), *frame.itertuples(index=False, name=None)]
        write_atomically(folder.file(name), csv_lines(rows))
    complete = len(samples) == run.schedule.samples
    evaluated = sum(row["status"] == "ok" for row in samples)
    whole, explain = complete and bool(evaluated), run.config.explain
    record = {
        "status": "finished" if whole else f"{evaluated} of {run.schedule.samples} samples",
        **run.record(),
        "evaluated": evaluated,
        "explained": {"variant": explain, "why": why_explained(explain)},
        "annotated": getattr(run.dataset, "annotated", True),
        "vehicle_iou": _iou(samples),
        "padded": padding(run.dataset),
        "conservation_residual": _largest(samples, "residual"),
        "replay_deviation": _largest(samples, "replay_deviation"),
        "skipped": [row["sample_token"] for row in samples if row["status"] != "ok"],
        "missing_partners": sorted({t for row in samples for t in row["missing_partners"].split()}),
    }
    remarks = notes(run, record)
    write_atomically(folder.file("notes.txt"), "".join(f"{n}\n" for n in remarks).encode())
    record["files"] = hashes_of(folder.path, HASHED)
    folder.write_record(record)
    files = [folder.file(name) for name in FILES if folder.file(name).exists()]
    _require_any(samples)
    return RunSummary(table, metrics, files, remarks, record)


def _require_any(samples: list[dict[str, str]]) -> None:
    """Refuses to call an evaluation of nothing a success.

    Raises:
        DataError: every sample was skipped; says why the first was.
    """
    if samples and all(row["status"] != "ok" for row in samples):
        why = samples[0]["status"].removeprefix("skipped: ")
        raise DataError(f"none of the {len(samples)} samples could be read; the first: {why}")


def padding(dataset: Any) -> dict[str, int]:
    """For each sample before which there are too few key frames, how many are repeated.

    As upstream does, the scene's first key frame stands in for those before it.
    """
    return {token: count for token, count in getattr(dataset, "padded", {}).items() if count}


def _iou(samples: list[dict[str, str]]) -> float | None:
    """Intersections over unions, both summed over the samples."""
    counted = [row for row in samples if row["union"]]
    union = sum(int(row["union"]) for row in counted)
    return sum(int(row["intersection"]) for row in counted) / union if union else None


def _largest(samples: list[dict[str, str]], column: str) -> float | None:
    """NaN if one is NaN."""
    values = [float(row[column]) for row in samples if row[column]]
    return largest(values) if values else None


def _require_exact(run: Run, samples: list[dict[str, str]]) -> None:
    """Rows of a sample that does not conserve, or whose parts are not the linearised network's."""
    types = (p.dtype for p in run.built.network.parameters() if p.is_floating_point())  # type: ignore[attr-defined]
    dtype = next(types, torch.float32)
    limits = tolerances_of(torch.empty((), dtype=dtype, device=run.device))
    for row in samples:
        for column, limit in (("residual", math.inf), ("replay_deviation", limits.replay)):
            if row[column]:
                require_within(
                    f"sample {row['sample_token']}: {column} in samples.csv",
                    float(row[column]),
                    limit,
                    lambda: "lmd check names the operation; --overwrite measures anew",
                )


def notes(run: Run, record: dict[str, Any]) -> list[str]:
    """What a reader of the table must know."""
    lines, word = [], words_of(run.config.model.modalities).one
    columns = table_comparisons(run.config.model.modalities)
    kept = ", ".join(column.title for column in columns if column.expected == "keep")
    if run.built.random:
        lines.append("Random weights: the numbers say nothing about a trained network.")
    lines += _data_notes(run.dataset)
    if record["vehicle_iou"] is not None:
        lines.append(
            f"{_iou_name(run)} of the unmodified network: {record['vehicle_iou']:.3f} "
            f"over {counted(record['evaluated'], 'sample')}."
        )
    lines.append(
        f"Each {word} is replaced by that of {counted(run.schedule.count, 'other sample')}, at "
        f"steps of {counted(run.schedule.stride, 'sample')} (N = {run.schedule.samples})."
    )
    if run.variants:
        which = "In LMD's rows, columns" if run.baselines else "Columns"
        lines.append(
            f"{which} {kept} are 1 (PCC) and 0 (MSE) by construction, because the part's own "
            f"{word} is not replaced (deviation measured by replay: "
            f"{_scientific(record['replay_deviation'])})."
        )
    if any(isinstance(method, Relinearised) for method in run.baselines):
        lines.append(
            f"Rows @perturbed are linearised anew at each perturbed input: their columns {kept} "
            f"show how much a part moves when only another {word} was replaced."
        )
    if run.schedule.samples < 1000 and _has_scenes(run):
        lines.append(
            "With so few samples many partners come from the same scenes and are not uncorrelated."
        )
    if record["padded"]:
        lines.append(
            "Fewer previous key frames in their scene than the network fuses: "
            f"{counted(len(record['padded']), 'sample')}; the scene's first key frame stands in "
            "for those that are missing (run.json lists the samples)."
        )
    if run.open_threads:
        lines.append(run.open_threads)
    if record["skipped"] or record["missing_partners"]:
        tokens = sorted({*record["skipped"], *record["missing_partners"]})
        lines.append(f"Unreadable samples were skipped ({len(tokens)}): {', '.join(tokens)}.")
    return lines


def _has_scenes(run: Run) -> bool:
    """Whether samples follow each other in scenes, in which they are alike."""
    return not is_custom(run.config.data) or len(run.dataset.scene_names) > 1


def _data_notes(dataset: Any) -> list[str]:
    """What the data lacks."""
    lines = []
    if not getattr(dataset, "annotated", True):
        lines.append("The data has no annotations: nothing is compared with the truth, no IoU.")
    if lacking := getattr(dataset, "left_out", None):
        lines.append(f"The tables have no {', '.join(lacking)}: samples are read without.")
    return lines


def _iou_name(run: Run) -> str:
    return "IoU with the data's segmentation" if is_custom(run.config.model) else "Vehicle IoU"


def _scientific(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1e}"
