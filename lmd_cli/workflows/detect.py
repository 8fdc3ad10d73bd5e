"""``lmd detect``: the unmodified network's boxes, their matches, and each sensor's part in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.detections import require_decode
from lmd_cli.attribution import method_named
from lmd_cli.attribution.interface import require_maps
from lmd_cli.config.schema import RunConfig
from lmd_cli.data import KeyframeSamples
from lmd_cli.data.content import index_sha256
from lmd_cli.decomposition import Variant
from lmd_cli.errors import ConfigError
from lmd_cli.results.finished import FinishedSamples
from lmd_cli.results.matched_detections import BOXES, METRICS
from lmd_cli.results.provenance import FINISHED
from lmd_cli.results.record import ANNOTATIONS, identity
from lmd_cli.results.run_folder import read_record
from lmd_cli.runtime.compute import resolve_device, set_switches
from lmd_cli.runtime.meeting import Meeting
from lmd_cli.runtime.progress import Progress, Silent
from lmd_cli.runtime.ranks import Rank
from lmd_cli.runtime.threads import resolve_threads
from lmd_cli.workflows.detect_results import (
    figures,
    result_notes,
    write_boxes,
    write_rows,
)
from lmd_cli.workflows.detect_sample import Setting, sample_entry
from lmd_cli.workflows.ranks import planned
from lmd_cli.workflows.setup import own_device
from lmd_cli.workflows.shared_samples import SharedSamples


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

    def recorded(self) -> dict[str, Any]:
        """As ``run.json`` holds them."""
        wanted = {"variants": list(self.variants), "methods": list(self.methods)}
        return {**wanted, "parts": self.parts}

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
    resume: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
    rank: Rank | None = None,
) -> Detected:
    """Writes detections.json, detections.csv and, where there are annotations and the devkit,
    detection_metrics.json and detection_counts.csv.

    Every finished sample is kept: a run that was cut off goes on, and ends with the same bytes.

    Args:
        config: data, network, device.
        folder: where files go.
        whose: which methods' parts of the detections are wanted.
        limit: only the first samples.
        resume: go on from results that are there.
        overwrite: replace results that are there.
        progress: where to show progress.
        rank: this process is rank 0 of several; the others call :func:`contribute`.

    Raises:
        MethodError: an unknown method, or one without maps.
        ContractError: a network without ``decode``, or boxes that are none.
        ResultsError: the folder holds another run's results.
        RunError: the disk is full, or another rank ended early.
        LmdError: what the building of data and network raises.
    """
    progress, meeting = progress or Silent(), None if rank is None else Meeting(rank)
    with nullcontext() if meeting is None else meeting.announcing_failure():
        recorded = None if overwrite else read_record(folder)
        setting = prepare(config, whose or WhoseParts(), recorded, progress, rank)
        count = len(setting.dataset) if limit is None else min(limit, len(setting.dataset))
        command = {"name": "detect", "limit": limit, **(whose or WhoseParts()).recorded()}
        how = {"resume": resume, "overwrite": overwrite}
        return _detected(setting, folder, count, command, how, progress, meeting)


def _detected(
    setting: Setting,
    folder: Path,
    count: int,
    command: Mapping[str, Any],
    how: Mapping[str, bool],
    progress: Progress,
    meeting: Meeting | None,
) -> Detected:
    own, finished = run_record(setting), FinishedSamples(folder)
    record = {**own, "command": command}
    with finished.claimed(record, dataset=setting.dataset, names_only=True, **how):
        _shared(setting, finished).finish("detect", own, count, progress, meeting)
        boxes = write_boxes(folder / BOXES, setting, finished.entries(count))
        tables, more = write_rows(folder, setting, finished, count, progress)
        metrics, reasons = figures(setting, folder, finished, count, progress)
        names = [BOXES, *tables, *([METRICS] if metrics else [])]
        finished.finish({**record, "detected": count, "boxes": sum(boxes.values())}, count, names)
    notes = [*result_notes(setting, boxes, metrics, count), *reasons, *more]
    notes += [] if finished.computed else [FINISHED]
    return Detected(count, boxes, metrics, notes, [folder / n for n in (*names, "run.json")])


def contribute(
    config: RunConfig, folder: Path, rank: Rank, *, whose: WhoseParts | None = None
) -> None:
    """Detects one rank's share of what rank 0 detects, with the same arguments.

    Raises:
        ResultsError: this rank would compute something else, or sees another folder.
        RunError: rank 0 ended before it had divided the work, or is frozen.
        LmdError: as :func:`detect`.
    """
    with planned(rank, folder) as plan:
        if plan is None:
            return
        setting = prepare(config, whose or WhoseParts(), plan.record, Silent(), rank)
        shared = _shared(setting, FinishedSamples(folder))
        shared.contribute(plan, run_record(setting), rank.rank)


def prepare(
    config: RunConfig, whose: WhoseParts, recorded: Any, progress: Progress, rank: Rank | None
) -> Setting:
    """Opens data and network; see :func:`detect`."""
    methods = tuple(require_maps(method_named(name)) for name in whose.methods)
    variants = whose.names(config)
    device = resolve_device(config.device if rank is None else own_device(config.device, rank))
    threads = resolve_threads(config, device, None if rank is None else rank.local_size, recorded)
    torch.set_num_threads(threads)
    set_switches(config.compute.tf32)
    built = build_network(config, device)
    require_decode(built.network)
    dataset = build_dataset(config, progress)
    if isinstance(dataset, KeyframeSamples):
        dataset.require_annotations()
    return Setting(config, built, dataset, device, threads, variants, methods)


def run_record(setting: Setting) -> dict[str, Any]:
    """What identifies the run; the first samples are computed for it."""
    where = (setting.config, setting.built, setting.dataset)
    same = identity(*where, setting.threads, setting.device)
    same["rows"] = ["detections", *setting.names]
    if isinstance(setting.dataset, KeyframeSamples):
        same[ANNOTATIONS] = index_sha256(setting.dataset, others=True)
    return same


def _shared(setting: Setting, finished: FinishedSamples) -> SharedSamples:
    entry = partial(sample_entry, setting)
    return SharedSamples(finished, entry, setting.dataset.tokens, setting.stopwatch)
