"""The evaluation of Appendix D.4 from end to end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch

from lmd_cli.attribution import ForwardMethod, method_named, require_maps
from lmd_cli.attribution.linearised import Lmd, Relinearised
from lmd_cli.build import BuiltNetwork, build_dataset, build_network, resolve_device
from lmd_cli.config import RunConfig
from lmd_cli.data import collate, default_workers, read_ahead
from lmd_cli.decomposition import Variant
from lmd_cli.errors import ResultsError
from lmd_cli.evaluation.cells import Cell, measured_cells, table_cells
from lmd_cli.evaluation.measure import measure, verified_samples
from lmd_cli.evaluation.record import package_versions, require_same_run, sample_list_sha256
from lmd_cli.evaluation.results import FILES, RunFolder, csv_lines, write_atomically
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.evaluation.stopwatch import Stopwatch
from lmd_cli.evaluation.summary import paper_table, read_pairs, summarise
from lmd_cli.evaluation.walk import make_encoder, walk


class Progress(Protocol):
    """Shows how far a long command is."""

    def start(self, total: int, description: str) -> None:
        """Begins a task of ``total`` steps."""

    def advance(self, n: int = 1, note: str = "", waiting: float | None = None) -> None:
        """Counts finished steps."""

    def close(self) -> None:
        """Ends the display."""


@dataclass(frozen=True)
class RunSummary:
    """What a run found.

    Attributes:
        table: the paper's layout.
        metrics: the columns of ``metrics.csv``.
        files: what was written.
        notes: lines that belong under the table.
        record: the contents of ``run.json``.
    """

    table: pd.DataFrame
    metrics: pd.DataFrame
    files: list[Path]
    notes: list[str]
    record: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """Everything that a run needs, resolved once."""

    config: RunConfig
    dataset: Any
    built: BuiltNetwork
    device: torch.device
    schedule: Schedule
    variants: list[str]
    rivals: list[ForwardMethod]
    cells: list[Cell]
    threads: int

    @property
    def names(self) -> list[str]:
        """Of the table's rows: variants of LMD, then other methods."""
        return [*self.variants, *(method.name for method in self.rivals)]

    def reading(self, first: int, last: int) -> AbstractContextManager[Any]:
        """A context that reads the samples of the walk's positions ``[first, last)``, in order."""
        workers = self.config.workers
        if workers is None:
            workers = default_workers(available_cores(), self.device)
        order = self.schedule.order(first, last)
        return read_ahead(self.dataset, collate, order, workers, self.device.type == "cuda")

    def record(self) -> dict[str, Any]:
        """The part of ``run.json`` that identifies the run."""
        asked = {"rows": self.names} if self.names != list(self.config.variants) else {}
        return {
            "config": self.config.model_dump(mode="json"),
            **asked,
            "checkpoint": self.built.checkpoint,
            "weights": {"sha256": self.built.sha256, "random": self.built.random},
            "samples": {
                "count": len(self.dataset),
                "sha256": sample_list_sha256(self.dataset.tokens),
            },
            "schedule": {"stride": self.schedule.stride, "count": self.schedule.count},
            "threads": self.threads,
            "device": str(self.device),
            "versions": package_versions(),
        }


def evaluate(
    config: RunConfig,
    output: Path,
    *,
    methods: Sequence[str] = (),
    relinearise: bool = False,
    limit: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    on_error: str = "stop",
    progress: Progress | None = None,
) -> RunSummary:
    """Runs the perturbation protocol and writes its results into a folder.

    Args:
        config: the resolved configuration.
        output: the run's folder; a run that was cut off there goes on.
        methods: what to evaluate instead of the config's variants, which are ``lmd``.
        relinearise: linearise LMD anew at each perturbed input, not at the clean sample.
        limit: only the first samples of the cycle (N and the stride stay).
        resume: go on from results that are there.
        overwrite: replace results that are there.
        on_error: ``stop`` at unreadable data, or ``skip`` the sample and drop its pairs.
        progress: where to show progress.

    Raises:
        ConfigError, CheckpointError, DataError: bad input.
        MethodError: an unknown method, or one that gives no maps of this network.
        ResultsError: the folder holds another run's results, or results that ``resume=False``
            would lose.
        RunError: the disk is full.
    """
    run = prepare(config, progress, methods, relinearise)
    folder = RunFolder(output)
    with folder.locked():
        _claim(folder, run, resume, overwrite)
        _walk(run, folder, limit, on_error == "skip", progress)
        return finish(run, folder)


def prepare(
    config: RunConfig,
    progress: Progress | None = None,
    methods: Sequence[str] = (),
    relinearise: bool = False,
) -> Run:
    """Opens the data and the network and resolves methods, threads, device and schedule."""
    variants, rivals = resolve_methods(methods or ("lmd",), config.variants)
    if relinearise:
        variants, rivals = [], [*map(Relinearised, variants), *rivals]
    threads = config.threads or available_cores()
    torch.set_num_threads(threads)
    device = resolve_device(config.device)
    # Weights first: what is wrong with them shows before a synthetic root is made.
    built = build_network(config, device)
    dataset = build_dataset(config, progress)
    settings = config.perturbation
    schedule = Schedule.resolve(len(dataset), settings.stride, settings.count)
    cells = measured_cells(built.network.modalities)
    return Run(config, dataset, built, device, schedule, variants, rivals, cells, threads)


def resolve_methods(
    methods: Sequence[str], configured: Sequence[str]
) -> tuple[list[str], list[ForwardMethod]]:
    """The variants of LMD and the other methods that are meant.

    Args:
        methods: names; ``lmd`` stands for the configured variants.
        configured: variants.

    Raises:
        MethodError: an unknown method, or one that gives no maps.
    """
    variants: list[str] = []
    rivals: dict[str, ForwardMethod] = {}
    for name in methods:
        if name == "lmd":
            variants += [Variant.parse(each).name for each in configured]
            continue
        method = method_named(name)
        if isinstance(method, Lmd):
            variants.append(method.variant.name)
        else:
            rivals[method.name] = require_maps(method)
    return list(dict.fromkeys(variants)), list(rivals.values())


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _claim(folder: RunFolder, run: Run, resume: bool, overwrite: bool) -> None:
    """Makes sure that what is in the folder is this run's, or gone."""
    if overwrite:
        folder.clear()
    if folder.has_results():
        if not resume:
            raise ResultsError(
                f"{folder.path} holds results, and --no-resume was given; add --overwrite to "
                "replace them, or use another --output"
            )
        old = folder.read_record()
        if old is None:
            raise ResultsError(
                f"{folder.path} holds results without a run.json, so they cannot be told to be "
                "this run's; use another --output, or --overwrite to replace them"
            )
        require_same_run(old, run.record(), str(folder.path))
    folder.write_record({"status": "unfinished", **run.record()})


def _walk(
    run: Run, folder: RunFolder, limit: int | None, skip: bool, progress: Progress | None
) -> None:
    done = folder.start_or_resume()
    last = run.schedule.samples if limit is None else min(limit, run.schedule.samples)
    stopwatch = Stopwatch()
    network, dataset, output = run.built.network, run.dataset, run.config.model.output
    keep = verified_samples(run.schedule)
    if progress is not None:
        progress.start(max(last - done, 0), "evaluate")
    try:
        with run.reading(done, last) as read:
            encode = make_encoder(network, dataset, collate, run.device, skip, stopwatch, read)
            for visit in walk(run.schedule, encode, done, last, keep):
                rows = measure(network, visit, run.variants, run.cells, output, run.rivals)
                folder.append("pairs.csv", rows.pairs)
                folder.append("samples.csv", [rows.sample])
                folder.append_timing((visit.sample.token, *stopwatch.lap()))
                if progress is not None:
                    progress.advance(note=visit.sample.token, waiting=stopwatch.waiting_share)
    finally:
        if progress is not None:
            progress.close()


def finish(run: Run, folder: RunFolder) -> RunSummary:
    """Tables and ``run.json`` from the rows on disk."""
    samples = folder.finished_samples()
    metrics = summarise(read_pairs(folder.file("pairs.csv")), run.names, run.cells)
    table = paper_table(metrics, table_cells(run.built.network.modalities))
    for name, frame in (("metrics.csv", metrics), ("table.csv", table)):
        rows = [list(frame.columns), *frame.itertuples(index=False, name=None)]
        write_atomically(folder.file(name), csv_lines(rows))
    complete = len(samples) == run.schedule.samples
    record = {
        "status": "finished" if complete else f"{len(samples)} of {run.schedule.samples} samples",
        **run.record(),
        "evaluated": len(samples),
        "vehicle_iou": _iou(samples),
        "padded": padding(run.dataset),
        "conservation_residual": _largest(samples, "residual"),
        "replay_deviation": _largest(samples, "replay_deviation"),
        "skipped": [row["sample_token"] for row in samples if row["status"] != "ok"],
        "missing_partners": sorted({t for row in samples for t in row["missing_partners"].split()}),
    }
    folder.write_record(record)
    remarks = notes(run, record)
    write_atomically(folder.file("notes.txt"), "".join(f"{n}\n" for n in remarks).encode())
    files = [folder.file(name) for name in FILES if folder.file(name).exists()]
    return RunSummary(table, metrics, files, remarks, record)


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
    return max((float(row[column]) for row in samples if row[column]), default=None)


def notes(run: Run, record: dict[str, Any]) -> list[str]:
    """What a reader of the table must know."""
    lines = []
    if run.built.random:
        lines.append("Random weights: the numbers say nothing about a trained network.")
    if record["vehicle_iou"] is not None:
        lines.append(
            f"Vehicle IoU of the unmodified network: {record['vehicle_iou']:.3f} "
            f"over {record['evaluated']} samples."
        )
    lines.append(
        f"Perturbed with the {run.schedule.count} samples at multiples of {run.schedule.stride} "
        f"samples (N = {run.schedule.samples})."
    )
    if run.variants:
        whose = "LMD's cells" if run.rivals else "Cells"
        lines.append(
            f"{whose} that keep their sensor are 1 and 0 by construction, replay deviation "
            f"{_scientific(record['replay_deviation'])}."
        )
    if any(isinstance(method, Relinearised) for method in run.rivals):
        lines.append(
            "Rows @perturbed are linearised anew at each perturbed input: their cells that keep "
            "their sensor show how much its part moves when only another sensor was replaced."
        )
    if run.schedule.samples < 1000:
        lines.append(
            "With so few samples many partners come from the same scenes and are not uncorrelated."
        )
    if record["padded"]:
        lines.append(
            f"{len(record['padded'])} samples have fewer previous key frames in their scene than "
            "the network fuses; the scene's first stands in for them (run.json lists the samples)."
        )
    if record["skipped"] or record["missing_partners"]:
        tokens = sorted({*record["skipped"], *record["missing_partners"]})
        lines.append(f"Unreadable samples were skipped ({len(tokens)}): {', '.join(tokens)}.")
    return lines


def _scientific(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1e}"
