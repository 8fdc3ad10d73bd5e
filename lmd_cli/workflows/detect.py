"""``lmd detect``: the unmodified network's boxes, their matches, and each sensor's part in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.detections import require_decode
from lmd_cli.attribution import method_named
from lmd_cli.attribution.interface import require_maps
from lmd_cli.config.schema import RunConfig
from lmd_cli.decomposition import Variant
from lmd_cli.errors import ConfigError
from lmd_cli.results.finished import FinishedSamples
from lmd_cli.results.record import identity
from lmd_cli.results.run_folder import read_record
from lmd_cli.runtime.compute import resolve_device, set_switches
from lmd_cli.runtime.progress import Progress, Silent
from lmd_cli.runtime.threads import resolve_threads
from lmd_cli.workflows.detect_results import (
    BOXES,
    METRICS,
    figures,
    result_notes,
    write_boxes,
    write_rows,
)
from lmd_cli.workflows.detect_sample import Setting, sample_entry


@dataclass(frozen=True)
class Detected:
    """The results of ``lmd detect``.

    Attributes:
        samples: how many were detected.
        boxes: how many boxes of each class there are.
        metrics: as in ``detection_metrics.json``; none where nothing can be matched.
        notes: lines that belong under the table.
        files: what was written.
    """

    samples: int
    boxes: dict[str, int]
    metrics: dict[str, Any] | None
    notes: list[str]
    files: list[Path]


@dataclass(frozen=True)
class WhoseParts:
    """Whose parts of each detection are wanted.

    Attributes:
        variants: rules of LMD; the config's ``explain`` and ``variants`` if none.
        methods: other methods.
        parts: whether any are.
    """

    variants: Sequence[str] = ()
    methods: Sequence[str] = ()
    parts: bool = True

    def names(self, config: RunConfig) -> tuple[str, ...]:
        """The variants, each once.

        Raises:
            ConfigError: one that does not exist.
        """
        if not self.parts:
            return ()
        try:
            wanted = self.variants or (config.explain, *config.variants)
            return tuple(dict.fromkeys(Variant.parse(name).name for name in wanted))
        except ValueError as error:
            raise ConfigError(str(error)) from None


def detect(
    config: RunConfig,
    folder: Path,
    *,
    whose: WhoseParts | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Detected:
    """Writes detections.json, detections.csv and, where there are annotations and the devkit,
    detection_metrics.json and detection_counts.csv.

    Every finished sample is kept: a run that was cut off goes on, and ends with the same bytes.

    Args:
        config: data, network, device.
        folder: where files go.
        whose: which methods' parts of the detections are wanted.
        limit: only the first samples.
        overwrite: replace results that are there.
        progress: where to show progress.

    Raises:
        MethodError: an unknown method, or one without maps.
        ContractError: a network without ``decode``, or boxes that are none.
        ResultsError: the folder holds another run's results.
        LmdError: what the building of data and network raises.
    """
    progress = progress or Silent()
    recorded = None if overwrite else read_record(folder)
    setting = prepare(config, whose or WhoseParts(), recorded, progress)
    dataset = setting.dataset
    count = len(dataset) if limit is None else min(limit, len(dataset))
    record = run_record(setting)
    finished = FinishedSamples(folder)
    with finished.claimed(record, overwrite, names_only=True) as entries:
        _finish_samples(setting, len(entries), count, finished, progress)
        boxes = write_boxes(folder / BOXES, setting, finished.entries(count))
        tables, more = write_rows(folder, setting, finished, count, progress)
        metrics, reasons = figures(setting, folder, finished, count, progress)
        finished.finish({**record, "detected": count, "boxes": sum(boxes.values())})
    notes = [*result_notes(setting, boxes, metrics, count), *reasons, *more]
    names = [BOXES, *tables, *([METRICS] if metrics else []), "run.json"]
    return Detected(count, boxes, metrics, notes, [folder / name for name in names])


def prepare(config: RunConfig, whose: WhoseParts, recorded: Any, progress: Progress) -> Setting:
    """Opens data and network; see :func:`detect`."""
    methods = tuple(method_named(name) for name in whose.methods)
    for method in methods:
        require_maps(method)
    variants = whose.names(config)
    device = resolve_device(config.device)
    threads = resolve_threads(config, device, recorded=recorded)
    torch.set_num_threads(threads)
    set_switches(config.compute.tf32)
    built = build_network(config, device)
    require_decode(built.network)
    dataset = build_dataset(config, progress)
    return Setting(config, built, dataset, device, threads, variants, methods)


def run_record(setting: Setting) -> dict[str, Any]:
    """What identifies the run."""
    where = (setting.config, setting.built, setting.dataset.tokens)
    same = identity(*where, setting.threads, setting.device)
    return {**same, "rows": ["detections", *setting.names]}


def _finish_samples(
    setting: Setting, done: int, count: int, finished: FinishedSamples, progress: Progress
) -> None:
    """Takes the samples that are missing, and notes each as it is done."""
    progress.start(max(count - done, 0), "detect")
    try:
        for index in range(done, count):
            finished.append(sample_entry(setting, index))
            token, waiting = setting.dataset.tokens[index], setting.stopwatch.waiting_share
            progress.advance(note=token, waiting=waiting)
    finally:
        progress.close()
