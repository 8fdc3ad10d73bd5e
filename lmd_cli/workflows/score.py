"""``lmd score``: attribution methods compared with the ground truth of each sensor's evidence."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.forward import Explained, encode_batch, explained
from lmd_cli.attribution import ForwardMethod, Method, method_named, parts, scores
from lmd_cli.attribution.gradients import IntegratedGradients
from lmd_cli.attribution.interface import run
from lmd_cli.config.schema import RunConfig
from lmd_cli.data import RemovalSettings, collate, to_device
from lmd_cli.data.synthetic import Evidence
from lmd_cli.decomposition import DecompositionError
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.errors import MethodError
from lmd_cli.evaluation.scores.against_interventions import AllEffects
from lmd_cli.evaluation.scores.ground_truth import GroundTruthObject, Means
from lmd_cli.evaluation.scores.interventions import Clean
from lmd_cli.results.finished import FinishedSamples
from lmd_cli.results.provenance import FINISHED
from lmd_cli.results.record import identity
from lmd_cli.results.run_folder import read_record
from lmd_cli.results.score_rows import written_effects
from lmd_cli.runtime.compute import resolve_device, set_switches
from lmd_cli.runtime.threads import resolve_threads, threads_note
from lmd_cli.workflows.evaluate import Progress
from lmd_cli.workflows.score_files import (
    ScoreSummary,
    left_out_methods,
    outcome,
    write_results,
)
from lmd_cli.workflows.score_inputs import (
    Kind,
    Setting,
    choose_ground_truth,
    planted_of,
    require_ground_truth,
)

log = logging.getLogger(__name__)

#: Results that differ from run to run, or that are written later.
UNSTABLE = ("times.csv", "run.json")
#: What is scored if nothing is asked for: LMD under the paper's rules, and every baseline.
DEFAULT_METHODS = (
    "lmd:identity-ratio",
    "lmd:identity-identity",
    "lmd:identity-uniform",
    "lmd:uniform-identity",
    "lmd:identity-ratio-sum",
    "lmd:identity-ratio-ratio",
    "lmd:identity-ratio-shapley",
    "lmd:identity-ratio-reveal",
    "lmd:identity-ratio-rescale",
    "lmd-shapley",
    "leave-one-out",
    "partial-activations",
    "partial-normalisations",
    "shapley",
    "gradient-x-input",
    "integrated-gradients",
    "lrp",
)


def score(
    config: RunConfig,
    folder: Path,
    methods: Sequence[str] = (),
    *,
    limit: int | None = None,
    resamples: int = 1000,
    resume: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
    truth: Kind | None = None,
    removal: RemovalSettings | None = None,
) -> ScoreSummary:
    """Scores methods and writes score.csv, vehicles.csv and times.csv; by intervention also
    interventions.csv, and against both truths agreement.csv.

    Every finished sample is kept: a run that was cut off goes on, and ends with the same bytes.

    Args:
        config: data, network, device; its seed draws the resamples.
        folder: where files go.
        methods: names; :data:`DEFAULT_METHODS` if none, and then those that cannot explain this
            network are left out with a note.
        limit: only the first samples.
        resamples: of the bootstrap.
        overwrite: replace results that are there.
        truth: what is scored against: recorded ground truth, interventions on objects, or both; by
            default the recorded one where there is one.
        removal: how objects are taken out of a sensor's data.

    Raises:
        MethodError: an unknown method, one that was asked for and cannot explain this network, or
            an output without vehicle logits, or a data set of the user's own without the ground
            truth that is asked for.
        DataError: a root without annotations, or without recorded ground truth where that is asked
            for.
        ContractError: regions of the user's own that do not fit.
        ResultsError: the folder holds another run's results.
        LmdError: what the building of data and network raises.
    """
    recorded = None if overwrite else read_record(folder)
    setting = _prepare(config, methods, progress, recorded, truth, removal or RemovalSettings())
    if note := threads_note(config, setting.threads, setting.device):
        log.warning(note)
    count = len(setting.dataset) if limit is None else min(limit, len(setting.dataset))
    rows: dict[str, Any] = {"methods": [m.name for m in setting.methods], "asked": setting.strict}
    if setting.truth.intervenes:
        rows |= {"truth": setting.truth.kind, "removal": asdict(setting.removal)}
    command = {
        "name": "score",
        "methods": list(methods),
        "limit": limit,
        "resamples": resamples,
        "truth": truth,
        "removal": asdict(setting.removal),
    }
    which = identity(config, setting.built, setting.dataset, setting.threads, setting.device)
    record = {**which, "rows": rows, "command": command}
    finished = FinishedSamples(folder)
    with finished.claimed(record, overwrite, setting.dataset, resume=resume) as entries:
        _finish_samples(setting, entries, count, finished, progress)
        summary = write_results(setting, folder, entries[:count], resamples)
        bootstrap = {"resamples": resamples, "seed": config.seed, "level": 0.95}
        verdict = None if summary.verdict is None else asdict(summary.verdict)
        ended = {**outcome(setting.methods, entries[:count]), "verdict": verdict}
        files = [path.name for path in summary.files if path.name not in UNSTABLE]
        finished.finish({**record, **ended, "bootstrap": bootstrap}, count, files)
    return summary if finished.computed else replace(summary, notes=[*summary.notes, FINISHED])


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
            left_out = left_out_methods(entries)
            able = [method for method in setting.methods if method.name not in left_out]
            entries.append(_sample(setting, index, able))
            finished.append(entries[-1])
            if progress is not None:
                token, waiting = setting.dataset.tokens[index], setting.stopwatch.waiting_share
                progress.advance(note=f"sample {token}", waiting=waiting)
    finally:
        if progress is not None:
            progress.close()


def _prepare(
    config: RunConfig,
    names: Sequence[str],
    progress: Progress | None,
    recorded: Any,
    truth: Kind | None,
    removal: RemovalSettings,
) -> Setting:
    methods = [method_named(name) for name in names or DEFAULT_METHODS]
    require_ground_truth(config)
    device = resolve_device(config.device)
    threads = resolve_threads(config, device, recorded=recorded)
    torch.set_num_threads(threads)
    set_switches(config.compute.tf32)
    built = build_network(config, device)
    dataset = build_dataset(config, progress)
    chosen = choose_ground_truth(config, dataset, truth)
    strict = bool(names)
    asked = (chosen, threads, methods, strict, removal, planted_of(config, dataset))
    return Setting(config, built, dataset, device, *asked)


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
    objects, means = setting.truth.objects.at(index, total)
    planted, means = _with_planted(setting, index, total, means)
    effects = _effects(setting, Clean(index, sample, features, total))
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
        "vehicles": [_written(_seen(setting, one, effects)) for one in objects],
        **({"planted": [_written(one) for one in planted]} if setting.planted else {}),
        "methods": shares,
        "left_out": left_out,
        **({"effects": written_effects(effects)} if setting.truth.intervenes else {}),
    }


def _with_planted(
    setting: Setting, index: int, total: Tensor, means: Means
) -> tuple[list[GroundTruthObject], Means]:
    """The planted false alarms of a sample, and means with theirs behind those of the vehicles."""
    if setting.planted is None:
        return [], means
    planted, own = setting.planted.at(index, total)
    return planted, lambda output: torch.cat([means(output), own(output)], dim=1)


def _effects(setting: Setting, clean: Clean) -> AllEffects:
    """What interventions on a sample's objects do; nothing without interventions."""
    interventions = setting.interventions
    return {} if interventions is None else interventions.effects(clean)


def _seen(setting: Setting, one: GroundTruthObject, effects: AllEffects) -> GroundTruthObject:
    """An object with what each sensor held of it as evidence, where nothing was recorded."""
    if setting.truth.recorded or one.token not in effects:
        return one
    amounts = {name: float(e.amount) for name, e in effects[one.token].items()}
    return replace(one, evidence=amounts)


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
