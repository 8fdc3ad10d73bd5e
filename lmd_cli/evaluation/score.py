"""``lmd score``: every method against what each sensor could see, where that is known."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lmd_cli.attribution import ForwardMethod, Method, method_named, parts, scores
from lmd_cli.build import BuiltNetwork, build_dataset, build_network, resolve_device
from lmd_cli.config import RunConfig
from lmd_cli.contract import encode_batch
from lmd_cli.data import collate, to_device
from lmd_cli.decomposition import DecompositionError
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.errors import MethodError
from lmd_cli.evaluation.explained import Explained, explained
from lmd_cli.evaluation.known_truth import GRADE, Score, Vehicle, truth_scores
from lmd_cli.evaluation.record import package_versions, sample_list_sha256
from lmd_cli.evaluation.results import csv_lines, disk_errors, write_atomically
from lmd_cli.evaluation.runner import Progress, available_cores
from lmd_cli.evaluation.stopwatch import Stopwatch
from lmd_cli.evaluation.truths import Means, RegionTruth, Truth, require_truth, truth_of

#: What is scored if nothing is asked for: LMD under the paper's rules, and every rival.
DEFAULT_METHODS = (
    "lmd:identity-ratio",
    "lmd:identity-identity",
    "lmd:identity-uniform",
    "lmd:uniform-identity",
    "lmd:identity-ratio-sum",
    "lmd:identity-ratio-ratio",
    "lmd-shapley",
    "leave-one-out",
    "partial-activations",
    "partial-normalisations",
    "shapley",
    "gradient-x-input",
    "integrated-gradients",
    "lrp",
)
SCORE_FIELDS = ("method", "score", "modality", "estimate", "low", "high", "vehicles", "undefined")
TIME_FIELDS = ("method", "seconds_per_sample", "plain_passes")


@dataclass
class Found:
    """What one method gave so far."""

    method: Method
    vehicles: list[Vehicle] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class ScoreSummary:
    """What ``lmd score`` found.

    Attributes:
        modalities: of the network.
        scores: for each method its scores.
        seconds: for each method the median time for a sample.
        plain_seconds: the median time of the network itself behind the encoders.
        notes: lines that belong under the table.
        files: what was written.
    """

    modalities: tuple[str, ...]
    scores: dict[str, list[Score]]
    seconds: dict[str, float]
    plain_seconds: float
    notes: list[str]
    files: list[Path]


@dataclass(frozen=True)
class Setting:
    """What is scored, resolved once."""

    config: RunConfig
    built: BuiltNetwork
    dataset: Any
    device: torch.device
    truth: Truth
    threads: int
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def output(self) -> str:
        """The output that is explained."""
        return self.config.model.output


def score(
    config: RunConfig,
    folder: Path,
    methods: Sequence[str] = (),
    *,
    limit: int | None = None,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Scores methods on a synthetic split and writes score.csv, vehicles.csv and times.csv.

    Args:
        config: data (a synthetic root), network, device; its seed draws the resamples.
        folder: where files go.
        methods: names; :data:`DEFAULT_METHODS` if none, and then those that cannot explain this
            network are left out with a note.
        limit: only the first samples.
        resamples: of the bootstrap.

    Raises:
        MethodError: an unknown method, one that was asked for and cannot explain this network, or
            an output without vehicle logits.
        DataError: the root is not synthetic.
        ContractError: regions of the user's own that do not fit.
        LmdError: what the building of data and network raises.
    """
    chosen = [Found(method_named(name)) for name in methods or DEFAULT_METHODS]
    setting = _prepare(config, progress)
    count = len(setting.dataset) if limit is None else min(limit, len(setting.dataset))
    left_out: dict[str, str] = {}
    plain: list[float] = []
    if progress is not None:
        progress.start(count, "score")
    try:
        for index in range(count):
            plain.append(_sample(setting, index, chosen, left_out, strict=bool(methods)))
            if progress is not None:
                token, waiting = setting.dataset.tokens[index], setting.stopwatch.waiting_share
                progress.advance(note=token, waiting=waiting)
    finally:
        if progress is not None:
            progress.close()
    kept = [found for found in chosen if found.method.name not in left_out]
    return _write(setting, folder, kept, left_out, plain, resamples)


def _prepare(config: RunConfig, progress: Progress | None) -> Setting:
    require_truth(config)
    threads = config.threads or available_cores()
    torch.set_num_threads(threads)
    device = resolve_device(config.device)
    built = build_network(config, device)
    dataset = build_dataset(config, progress)
    return Setting(config, built, dataset, device, truth_of(config, dataset), threads)


def _sample(
    setting: Setting, index: int, chosen: list[Found], left_out: dict[str, str], *, strict: bool
) -> float:
    """Every method at one sample; returns the time of a plain pass."""
    network = setting.built.network
    with setting.stopwatch.reading():
        sample = setting.dataset[index]
    batch = to_device(collate([sample]), setting.device)
    with torch.no_grad():
        features, constants = encode_batch(network, batch, setting.dataset.tokens[index])
        what = explained(network, setting.output, features, constants)
        started = time.perf_counter()
        total = what.fuse(**what.features)
        plain = time.perf_counter() - started
    things, means = setting.truth.at(index, total)
    for found in chosen:
        if found.method.name in left_out:
            continue
        try:
            shares = _timed(found, what, means, maps_only=not strict)
        except (MethodError, DecompositionError) as error:
            if strict:
                raise
            left_out[found.method.name] = str(error)
            continue
        found.vehicles += [
            Vehicle(
                t.token, t.instance, t.evidence, t.detected, {n: v[i] for n, v in shares.items()}
            )
            for i, t in enumerate(things)
        ]
    return plain


def _timed(
    found: Found, what: Explained, means: Means, *, maps_only: bool
) -> dict[str, list[float]]:
    """Each part's shares of the vehicles.

    Args:
        maps_only: a method that can give maps must (number by number it may take minutes).
    """
    started = time.perf_counter()
    if maps_only and isinstance(found.method, ForwardMethod):
        trees = parts(found.method, what.fuse, what.features)
        shares = {name: means(tree) for name, tree in trees.items()}
    else:
        shares = scores(found.method, what.fuse, what.features, means)
    numbers = {name: values[0].double().tolist() for name, values in shares.items()}
    found.seconds.append(time.perf_counter() - started)
    return numbers


# -- results ------------------------------------------------------------------------------


def _write(
    setting: Setting,
    folder: Path,
    kept: list[Found],
    left_out: dict[str, str],
    plain: list[float],
    resamples: int,
) -> ScoreSummary:
    modalities = setting.built.network.modalities
    found = {
        f.method.name: truth_scores(
            f.vehicles, modalities, seed=setting.config.seed, resamples=resamples
        )
        for f in kept
    }
    seconds = {f.method.name: median(f.seconds) for f in kept}
    usual = median(plain)
    tables = {
        "score.csv": [SCORE_FIELDS, *score_rows(found)],
        "vehicles.csv": list(vehicle_rows(kept, modalities)),
        "times.csv": [TIME_FIELDS, *((n, s, s / usual) for n, s in seconds.items())],
    }
    record = _record(setting, kept, left_out, len(plain), resamples)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_atomically(folder / name, csv_lines(rows))
    write_atomically(folder / "run.json", (json.dumps(record, indent=2) + "\n").encode())
    notes = _notes(setting, kept, left_out)
    files = [folder / name for name in (*tables, "run.json")]
    return ScoreSummary(modalities, found, seconds, usual, notes, files)


def score_rows(found: dict[str, list[Score]]) -> Iterable[tuple[Any, ...]]:
    """The rows of ``score.csv``, in the order of the methods."""
    for name, list_of in found.items():
        for s in list_of:
            i = s.interval
            yield name, s.name, s.modality, i.estimate, i.low, i.high, s.vehicles, i.undefined


def vehicle_rows(kept: list[Found], modalities: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    """``vehicles.csv`` with its header: every vehicle under every method."""
    seen = tuple(f"seen_by_{m}" for m in modalities)
    grades = tuple(GRADE.get(m, f"evidence_{m}") for m in modalities)
    columns = (*modalities, BIAS)
    yield ("method", "annotation_token", "instance_token", "detected", *seen, *grades, *columns)
    for found in kept:
        for v in found.vehicles:
            truth = (*(int(v.sees(m)) for m in modalities), *map(v.grade, modalities))
            values = (v.parts[name] for name in columns)
            yield (found.method.name, v.token, v.instance, int(v.detected), *truth, *values)


def _record(
    setting: Setting, kept: list[Found], left_out: dict[str, str], samples: int, resamples: int
) -> dict[str, Any]:
    return {
        "config": setting.config.model_dump(mode="json"),
        "checkpoint": setting.built.checkpoint,
        "weights": {"sha256": setting.built.sha256, "random": setting.built.random},
        "samples": {
            "scored": samples,
            "count": len(setting.dataset),
            "sha256": sample_list_sha256(setting.dataset.tokens),
        },
        "methods": [found.method.name for found in kept],
        "left_out": left_out,
        "bootstrap": {"resamples": resamples, "seed": setting.config.seed, "level": 0.95},
        "threads": setting.threads,
        "device": str(setting.device),
        "versions": package_versions(),
    }


def _notes(setting: Setting, kept: list[Found], left_out: dict[str, str]) -> list[str]:
    lines = []
    if setting.built.random:
        lines.append("Random weights: the numbers say nothing about a trained network.")
    vehicles = kept[0].vehicles if kept else []
    name = "regions" if isinstance(setting.truth, RegionTruth) else "vehicles"
    objects = len({v.instance for v in vehicles})
    lines.append(
        f"{len(vehicles)} {name} ({objects} objects; intervals resample objects). AUROC is over "
        "those that one sensor alone could see. That truth is itself a removal, which favours "
        "methods that remove a sensor; rank correlation with graded evidence does not."
    )
    lines += [
        f"{name} was left out (ask for it with --method): {why}" for name, why in left_out.items()
    ]
    return lines
