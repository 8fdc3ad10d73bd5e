"""``lmd score``: attribution methods compared with the ground truth of each sensor's evidence."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
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
from lmd_cli.runtime.meeting import Meeting
from lmd_cli.runtime.progress import Progress, Silent
from lmd_cli.runtime.ranks import Rank
from lmd_cli.runtime.threads import resolve_threads, threads_note
from lmd_cli.workflows.ranks import planned
from lmd_cli.workflows.score_files import (
    ScoreSummary,
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
from lmd_cli.workflows.setup import own_device
from lmd_cli.workflows.shared_samples import SharedSamples

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
    rank: Rank | None = None,
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
        rank: this process is rank 0 of several; the others call :func:`contribute`.

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
    progress, meeting = progress or Silent(), None if rank is None else Meeting(rank)
    with nullcontext() if meeting is None else meeting.announcing_failure():
        recorded = None if overwrite else read_record(folder)
        asked = (truth, removal or RemovalSettings(), rank)
        setting = _prepare(config, methods, progress, recorded, *asked)
        if note := threads_note(config, setting.threads, setting.device):
            log.warning(note)
        count = len(setting.dataset) if limit is None else min(limit, len(setting.dataset))
        command = {
            "name": "score",
            "methods": list(methods),
            "limit": limit,
            "resamples": resamples,
            "truth": truth,
            "removal": asdict(setting.removal),
        }
        how = {"resume": resume, "overwrite": overwrite}
        return _scored(setting, folder, count, command, how, progress, meeting)


def contribute(
    config: RunConfig,
    folder: Path,
    rank: Rank,
    methods: Sequence[str] = (),
    *,
    truth: Kind | None = None,
    removal: RemovalSettings | None = None,
) -> None:
    """Scores one rank's share of what rank 0 scores, with the same arguments.

    Raises:
        ResultsError: this rank would compute something else, or sees another folder.
        RunError: rank 0 ended before it had divided the work, or is frozen.
        LmdError: as :func:`score`.
    """
    with planned(rank, folder) as plan:
        if plan is None:
            return
        asked = (truth, removal or RemovalSettings(), rank)
        setting = _prepare(config, methods, Silent(), plan.record, *asked)
        shared = _shared(setting, FinishedSamples(folder))
        shared.contribute(plan, _run_record(setting), rank.rank)


def _scored(
    setting: Setting,
    folder: Path,
    count: int,
    command: Mapping[str, Any],
    how: Mapping[str, bool],
    progress: Progress,
    meeting: Meeting | None,
) -> ScoreSummary:
    own, finished = _run_record(setting), FinishedSamples(folder)
    record = {**own, "command": command}
    with finished.claimed(record, dataset=setting.dataset, **how):
        shared = _shared(setting, finished)
        shared.finish("score", own, count, progress, meeting)
        entries = list(finished.entries(count))
        resamples = command["resamples"]
        summary = write_results(setting, folder, entries, resamples)
        bootstrap = {"resamples": resamples, "seed": setting.config.seed, "level": 0.95}
        ended = {**outcome(setting.methods, entries), "verdict": asdict(summary.verdict)}
        files = [path.name for path in summary.files if path.name not in UNSTABLE]
        finished.finish({**record, **ended, "bootstrap": bootstrap}, count, files)
    return summary if finished.computed else replace(summary, notes=[*summary.notes, FINISHED])


def _run_record(setting: Setting) -> dict[str, Any]:
    """What identifies the run."""
    rows: dict[str, Any] = {"methods": [m.name for m in setting.methods], "asked": setting.strict}
    if setting.truth.intervenes:
        rows |= {"truth": setting.truth.kind, "removal": asdict(setting.removal)}
    where = (setting.config, setting.built, setting.dataset)
    return {**identity(*where, setting.threads, setting.device), "rows": rows}


def _shared(setting: Setting, finished: FinishedSamples) -> SharedSamples:
    """What is done at each sample."""
    entry = partial(_sample, setting)
    return SharedSamples(finished, entry, setting.dataset.tokens, setting.stopwatch)


def _prepare(
    config: RunConfig,
    names: Sequence[str],
    progress: Progress,
    recorded: Any,
    truth: Kind | None,
    removal: RemovalSettings,
    rank: Rank | None,
) -> Setting:
    methods = [method_named(name) for name in names or DEFAULT_METHODS]
    require_ground_truth(config)
    device = resolve_device(config.device if rank is None else own_device(config.device, rank))
    threads = resolve_threads(config, device, None if rank is None else rank.local_size, recorded)
    torch.set_num_threads(threads)
    set_switches(config.compute.tf32)
    built = build_network(config, device)
    dataset = build_dataset(config, progress)
    chosen = choose_ground_truth(config, dataset, truth)
    strict = bool(names)
    asked = (chosen, threads, methods, strict, removal, planted_of(config, dataset))
    return Setting(config, built, dataset, device, *asked)


def _sample(setting: Setting, index: int) -> dict[str, Any]:
    """Every method at one sample: its line among the finished. It depends on no other sample, so
    that ranks and resumed runs write the same: a method that failed before is tried again."""
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
    for method in setting.methods:
        try:
            shares[method.name] = _timed(method, what, means, maps_only=not setting.strict)
        except (MethodError, DecompositionError) as error:
            if setting.strict:
                raise MethodError(f"{method.name}: {error}") from error
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
