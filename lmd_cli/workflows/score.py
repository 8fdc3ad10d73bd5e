"""``lmd score``: attribution methods compared with the ground truth of each sensor's evidence."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lmd_cli.assembly.build import BuiltNetwork, build_dataset, build_network
from lmd_cli.assembly.forward import Explained, encode_batch, explained
from lmd_cli.attribution import ForwardMethod, Method, method_named, parts, scores
from lmd_cli.attribution.gradients import IntegratedGradients
from lmd_cli.attribution.interface import run
from lmd_cli.config.schema import RunConfig
from lmd_cli.data import collate, to_device
from lmd_cli.data.synthetic import Evidence
from lmd_cli.decomposition import DecompositionError
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.errors import MethodError
from lmd_cli.evaluation.ground_truth import (
    GroundTruth,
    GroundTruthObject,
    Means,
    RegionGroundTruth,
)
from lmd_cli.evaluation.scoring import Score, Vehicle, ground_truth_scores
from lmd_cli.results.finished import FinishedSamples
from lmd_cli.results.record import identity
from lmd_cli.results.run_folder import read_record
from lmd_cli.results.score_rows import (
    SCORE_FIELDS,
    TIME_FIELDS,
    MethodResult,
    missed_by_steps,
    score_rows,
    vehicle_rows,
)
from lmd_cli.runtime.compute import resolve_device, set_switches
from lmd_cli.runtime.files import csv_lines, write_atomically
from lmd_cli.runtime.stopwatch import Stopwatch
from lmd_cli.runtime.threads import resolve_threads
from lmd_cli.workflows.evaluate import Progress
from lmd_cli.workflows.ground_truth import ground_truth_of, require_ground_truth

#: What is scored if nothing is asked for: LMD under the paper's rules, and every baseline.
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


@dataclass(frozen=True)
class ScoreSummary:
    """The results of ``lmd score``.

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
    """What is scored, resolved once; ``strict`` if every method must explain the network."""

    config: RunConfig
    built: BuiltNetwork
    dataset: Any
    device: torch.device
    truth: GroundTruth
    threads: int
    methods: list[Method]
    strict: bool
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
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Scores methods on a synthetic split and writes score.csv, vehicles.csv and times.csv.

    Every finished sample is kept: a run that was cut off goes on, and ends with the same bytes.

    Args:
        config: data (a synthetic root), network, device; its seed draws the resamples.
        folder: where files go.
        methods: names; :data:`DEFAULT_METHODS` if none, and then those that cannot explain this
            network are left out with a note.
        limit: only the first samples.
        resamples: of the bootstrap.
        overwrite: replace results that are there.

    Raises:
        MethodError: an unknown method, one that was asked for and cannot explain this network, or
            an output without vehicle logits.
        DataError: the root is not synthetic.
        ContractError: regions of the user's own that do not fit.
        ResultsError: the folder holds another run's results.
        LmdError: what the building of data and network raises.
    """
    setting = _prepare(config, methods, progress, None if overwrite else read_record(folder))
    count = len(setting.dataset) if limit is None else min(limit, len(setting.dataset))
    rows = {"methods": [m.name for m in setting.methods], "asked": setting.strict}
    tokens = setting.dataset.tokens
    which = identity(config, setting.built, tokens, setting.threads, setting.device)
    record = {**which, "rows": rows}
    finished = FinishedSamples(folder)
    with finished.claimed(record, overwrite) as entries:
        _finish_samples(setting, entries, count, finished, progress)
        summary = _write(setting, folder, entries[:count], resamples)
        bootstrap = {"resamples": resamples, "seed": config.seed, "level": 0.95}
        outcome = _outcome(setting.methods, entries[:count])
        finished.finish({**record, **outcome, "bootstrap": bootstrap})
    return summary


def _finish_samples(
    setting: Setting,
    entries: list[dict[str, Any]],
    count: int,
    finished: FinishedSamples,
    progress: Progress | None,
) -> None:
    """Takes the samples that are missing, and notes each as it is done."""
    if progress is not None:
        progress.start(max(count - len(entries), 0), "score")
    try:
        for index in range(len(entries), count):
            left_out = _left_out(entries)
            able = [method for method in setting.methods if method.name not in left_out]
            entries.append(_sample(setting, index, able))
            finished.append(entries[-1])
            if progress is not None:
                token, waiting = setting.dataset.tokens[index], setting.stopwatch.waiting_share
                progress.advance(note=token, waiting=waiting)
    finally:
        if progress is not None:
            progress.close()


def _left_out(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Methods that could not explain the network, and why."""
    return {name: why for entry in entries for name, why in entry["left_out"].items()}


def _prepare(
    config: RunConfig, names: Sequence[str], progress: Progress | None, recorded: Any
) -> Setting:
    methods = [method_named(name) for name in names or DEFAULT_METHODS]
    require_ground_truth(config)
    device = resolve_device(config.device)
    threads = resolve_threads(config, device, recorded=recorded)
    torch.set_num_threads(threads)
    set_switches(config.compute.tf32)
    built = build_network(config, device)
    dataset = build_dataset(config, progress)
    truth = ground_truth_of(config, dataset)
    return Setting(config, built, dataset, device, truth, threads, methods, bool(names))


def _sample(setting: Setting, index: int, methods: Sequence[Method]) -> dict[str, Any]:
    """Every method at one sample: its line among the finished."""
    network = setting.built.network
    with setting.stopwatch.reading():
        sample = setting.dataset[index]
    batch = to_device(collate([sample]), setting.device)
    with torch.no_grad():
        features, constants = encode_batch(
            network, batch, setting.dataset.tokens[index], setting.config.compute.precision
        )
        what = explained(network, setting.output, features, constants)
        started = time.perf_counter()
        total = what.fuse(**what.features)
        plain = time.perf_counter() - started
    objects, means = setting.truth.at(index, total)
    shares: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for method in methods:
        try:
            shares[method.name] = _timed(method, what, means, maps_only=not setting.strict)
        except (MethodError, DecompositionError) as error:
            if setting.strict:
                raise
            left_out[method.name] = str(error)
    return {
        "sample": setting.dataset.tokens[index],
        "plain_seconds": plain,
        "vehicles": [_written(one) for one in objects],
        "methods": shares,
        "left_out": left_out,
    }


def _written(one: GroundTruthObject) -> dict[str, Any]:
    """The ground truth of a vehicle, as its line holds it."""
    synthetic = isinstance(one.evidence, Evidence)
    values = asdict(one.evidence) if isinstance(one.evidence, Evidence) else dict(one.evidence)
    return {**vars(one), "evidence": values, "synthetic": synthetic}


def _timed(method: Method, what: Explained, means: Means, *, maps_only: bool) -> dict[str, Any]:
    """Each part's shares of the vehicles, and how long they took.

    Args:
        maps_only: a method that can give maps must (number by number it may take minutes).
    """
    started = time.perf_counter()
    if maps_only and isinstance(method, ForwardMethod):
        trees = parts(method, what.fuse, what.features)
        shares = {name: means(tree) for name, tree in trees.items()}
    else:
        shares = scores(method, what.fuse, what.features, means)
    numbers = {name: values[0].double().tolist() for name, values in shares.items()}
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "shares": numbers, **_gap(method, what, means, numbers)}


def _gap(
    method: Method, what: Explained, means: Means, shares: Mapping[str, list[float]]
) -> dict[str, Any]:
    """What a quadrature misses of F(x) - F(0) for each vehicle; it is in the bias's share."""
    if not isinstance(method, IntegratedGradients):
        return {}
    nothing = means(run(what.fuse, what.features, frozenset(what.features)))[0].double().tolist()
    return {"missed": [bias - zero for bias, zero in zip(shares[BIAS], nothing, strict=True)]}


def _vehicles(entry: Mapping[str, Any], name: str) -> Iterable[Vehicle]:
    """A sample's vehicles with their parts under one method."""
    shares = entry["methods"][name]["shares"]
    for i, vehicle in enumerate(entry["vehicles"]):
        evidence = vehicle["evidence"]
        yield Vehicle(
            vehicle["token"],
            vehicle["instance"],
            Evidence(**evidence) if vehicle["synthetic"] else evidence,
            vehicle["detected"],
            {part: values[i] for part, values in shares.items()},
        )


# -- results ------------------------------------------------------------------------------


def _write(
    setting: Setting,
    folder: Path,
    entries: Sequence[Mapping[str, Any]],
    resamples: int,
) -> ScoreSummary:
    modalities = setting.built.network.modalities
    kept = [_result(name, entries) for name in _kept(setting.methods, entries)]
    scored = {
        f.name: ground_truth_scores(
            f.vehicles, modalities, seed=setting.config.seed, resamples=resamples
        )
        for f in kept
    }
    seconds = {f.name: median(f.seconds) for f in kept}
    usual = median(entry["plain_seconds"] for entry in entries)
    tables = {
        "score.csv": [SCORE_FIELDS, *score_rows(scored)],
        "vehicles.csv": list(vehicle_rows(kept, modalities)),
        "times.csv": [TIME_FIELDS, *((n, s, s / usual) for n, s in seconds.items())],
    }
    for name, rows in tables.items():
        write_atomically(folder / name, csv_lines(rows))
    notes = _notes(setting, kept, _left_out(entries))
    notes += [
        f"{name}: its steps miss {share:.1%} of F(x) - F(0) (sums of magnitudes over the "
        "vehicles); that is in the bias."
        for name, share in missed_by_steps(entries).items()
    ]
    files = [folder / name for name in (*tables, "run.json")]
    return ScoreSummary(modalities, scored, seconds, usual, notes, files)


def _kept(chosen: Sequence[Method], entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the methods that explained every sample."""
    left_out = _left_out(entries)
    return [method.name for method in chosen if method.name not in left_out]


def _result(name: str, entries: Sequence[Mapping[str, Any]]) -> MethodResult:
    vehicles = [v for entry in entries for v in _vehicles(entry, name)]
    return MethodResult(name, vehicles, [entry["methods"][name]["seconds"] for entry in entries])


def _outcome(chosen: Sequence[Method], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``run.json`` says of the results."""
    return {
        "scored": len(entries),
        "methods": _kept(chosen, entries),
        "left_out": _left_out(entries),
        "missed_by_steps": missed_by_steps(entries),
    }


def _notes(setting: Setting, kept: list[MethodResult], left_out: dict[str, str]) -> list[str]:
    lines = []
    if setting.built.random:
        lines.append("Random weights: the numbers say nothing about a trained network.")
    vehicles = kept[0].vehicles if kept else []
    name = "regions" if isinstance(setting.truth, RegionGroundTruth) else "vehicles"
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
