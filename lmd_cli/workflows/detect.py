"""``lmd detect``: the unmodified network's boxes, and nuScenes' figures for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lmd_cli.assembly.build import BuiltNetwork, Samples, build_dataset, build_network
from lmd_cli.assembly.detections import detections, require_decode
from lmd_cli.config.schema import RunConfig
from lmd_cli.data.custom import CustomSamples
from lmd_cli.data.nuscenes.submission import DETECTION_NAMES, submission_boxes
from lmd_cli.results.finished import FinishedSamples
from lmd_cli.results.record import identity
from lmd_cli.results.run_folder import read_record
from lmd_cli.runtime.compute import resolve_device, set_switches
from lmd_cli.runtime.files import disk_errors, replacing, write_atomically
from lmd_cli.runtime.progress import Progress, Silent
from lmd_cli.runtime.stopwatch import Stopwatch
from lmd_cli.runtime.threads import resolve_threads
from lmd_cli.workflows.detection_metrics import NoMetricsError, detection_metrics
from lmd_cli.workflows.ready import encode

BOXES, METRICS = "detections.json", "detection_metrics.json"
#: nuScenes' kinds of inputs that a submission declares.
INPUTS = ("camera", "lidar", "radar", "map", "external")


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
class _Setting:
    """What is detected, and with what."""

    config: RunConfig
    built: BuiltNetwork
    dataset: Samples
    device: torch.device
    threads: int
    stopwatch: Stopwatch = field(default_factory=Stopwatch)


def detect(
    config: RunConfig,
    folder: Path,
    *,
    limit: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Detected:
    """Writes detections.json and, where there are annotations and the devkit,
    detection_metrics.json.

    Every finished sample is kept: a run that was cut off goes on, and ends with the same bytes.

    Args:
        config: data, network, device.
        folder: where files go.
        limit: only the first samples.
        overwrite: replace results that are there.
        progress: where to show progress.

    Raises:
        MethodError, ContractError: a network without ``decode``, or boxes that are none.
        ResultsError: the folder holds another run's results.
        LmdError: what the building of data and network raises.
    """
    progress = progress or Silent()
    setting = _prepare(config, None if overwrite else read_record(folder), progress)
    dataset = setting.dataset
    count = len(dataset) if limit is None else min(limit, len(dataset))
    where = identity(config, setting.built, dataset.tokens, setting.threads, setting.device)
    record = {**where, "rows": ["detections"]}
    finished = FinishedSamples(folder)
    with finished.claimed(record, overwrite, names_only=True) as entries:
        _finish_samples(setting, len(entries), count, finished, progress)
        boxes = _write_boxes(folder / BOXES, setting, finished.entries(count))
        metrics, notes = _figures(dataset, folder, count, progress)
        finished.finish({**record, "detected": count, "boxes": sum(boxes.values())})
    notes = [*_notes(setting, boxes, metrics, count), *notes]
    names = [BOXES, *([METRICS] if metrics else []), "run.json"]
    return Detected(count, boxes, metrics, notes, [folder / name for name in names])


def _prepare(config: RunConfig, recorded: Any, progress: Progress) -> _Setting:
    device = resolve_device(config.device)
    threads = resolve_threads(config, device, recorded=recorded)
    torch.set_num_threads(threads)
    set_switches(config.compute.tf32)
    built = build_network(config, device)
    require_decode(built.network)
    return _Setting(config, built, build_dataset(config, progress), device, threads)


def _finish_samples(
    setting: _Setting, done: int, count: int, finished: FinishedSamples, progress: Progress
) -> None:
    """Takes the samples that are missing, and notes each as it is done."""
    progress.start(max(count - done, 0), "detect")
    try:
        for index in range(done, count):
            finished.append(_sample(setting, index))
            token, waiting = setting.dataset.tokens[index], setting.stopwatch.waiting_share
            progress.advance(note=token, waiting=waiting)
    finally:
        progress.close()


def _sample(setting: _Setting, index: int) -> dict[str, Any]:
    """The boxes of one sample: its line among the finished."""
    dataset, network = setting.dataset, setting.built.network
    token = dataset.tokens[index]
    with setting.stopwatch.reading():
        sample = dataset[index]
    precision = setting.config.compute.precision
    features, constants = encode(network, [sample], setting.device, precision)
    detected = detections(network, features, constants, token)
    boxes, scores = (x.double().cpu().numpy() for x in (detected.boxes, detected.scores))
    pose = dataset.global_T_ego(index)
    return {"sample": token, "boxes": submission_boxes(token, boxes, scores, detected.names, pose)}


def _write_boxes(
    path: Path, setting: _Setting, entries: Iterable[dict[str, Any]]
) -> dict[str, int]:
    """Writes the submission, one sample a line; gives the number of boxes of each class."""
    counts: Counter[str] = Counter()
    used = {f"use_{name}": name in setting.built.network.modalities for name in INPUTS}
    with disk_errors(path), replacing(path) as file:
        file.write(f'{{"meta": {json.dumps(used)}, "results": {{'.encode())
        for i, entry in enumerate(entries):
            counts.update(box["detection_name"] for box in entry["boxes"])
            start = ",\n" if i else "\n"
            line = f"{start}{json.dumps(entry['sample'])}: {json.dumps(entry['boxes'])}"
            file.write(line.encode())
        file.write(b"\n}}\n")
    return dict(counts)


def _figures(
    dataset: Samples, folder: Path, count: int, progress: Progress
) -> tuple[dict[str, Any] | None, list[str]]:
    """The devkit's figures, written, or why there are none."""
    path = folder / METRICS
    try:
        metrics = _matched(dataset, folder / BOXES, count, progress)
    except NoMetricsError as reason:
        with disk_errors(path):
            path.unlink(missing_ok=True)  # of an earlier run of more samples
        return None, [str(reason)]
    write_atomically(path, (json.dumps(metrics, indent=2) + "\n").encode())
    return metrics, []


def _matched(dataset: Samples, file: Path, count: int, progress: Progress) -> dict[str, Any]:
    if isinstance(dataset, CustomSamples):
        frame = (
            ""
            if dataset.posed
            else (" It has no global_T_ego(index) either: boxes are in the network's own frame.")
        )
        raise NoMetricsError(f"The data set is no nuScenes root: there is nothing to match.{frame}")
    if not dataset.annotated:
        raise NoMetricsError(
            "The split has no annotations: boxes are written, and there is nothing to match."
        )
    tokens = dataset.tokens[:count]
    return detection_metrics(dataset.dataroot, dataset.version, tokens, file, progress)


def _notes(
    setting: _Setting, boxes: dict[str, int], metrics: dict[str, Any] | None, count: int
) -> list[str]:
    """What a reader of the figures must know."""
    notes = []
    if setting.built.random:
        notes.append("Random weights: the boxes mean nothing.")
    classes = getattr(setting.built.network, "detection_classes", None)
    if foreign := sorted({*boxes, *(classes or ())} - set(DETECTION_NAMES)):
        notes.append(f"No classes of nuScenes' detection task: {', '.join(foreign)}.")
    if metrics is None:
        return notes
    samples = len(setting.dataset)
    if count < samples:
        notes.append(f"The figures are of the first {count} of {samples} samples.")
    if classes is not None:
        lacking = [name for name in DETECTION_NAMES if name not in classes]
        notes += _absent("The network does not have", lacking)
    unseen = [name for name, number in metrics["annotations"].items() if not number]
    return notes + _absent("These samples have no annotation of", unseen)


def _absent(why: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"{why} {', '.join(names)}: AP 0 and errors 1 in mAP and NDS, by nuScenes' rule."]
