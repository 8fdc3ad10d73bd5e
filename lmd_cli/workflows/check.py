"""``lmd check``: everything that a run needs is tried before it starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf, isnan
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from lmd_cli.assembly.build import BuiltNetwork, Samples, build_dataset, build_network
from lmd_cli.assembly.contract import Features
from lmd_cli.assembly.forward import fuse_function
from lmd_cli.config.schema import DataConfig, RunConfig
from lmd_cli.data.custom import CustomSamples
from lmd_cli.data.nuscenes.index.splits import split_name
from lmd_cli.decomposition import Decomposition, Variant
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.linearised.replay import deviation, replay, replay_deviation
from lmd_cli.decomposition.pytrees import map_tensors
from lmd_cli.errors import LmdError
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.evaluation.tolerances import (
    DOUBLE,
    OPERATION,
    large_parts_message,
    locate_deviation,
    magnification,
)
from lmd_cli.runtime.progress import Progress, Silent
from lmd_cli.workflows.check_data import Checks, check_contents, check_files, check_tables
from lmd_cli.workflows.check_published import check_published
from lmd_cli.workflows.ready import encode, split, start


@dataclass(frozen=True)
class Covered:
    """The rule that an operation met in a module."""

    module: str
    operation: str
    kind: str
    equation: str


@dataclass
class Preflight(Checks):
    """The checks of :func:`preflight`.

    Attributes:
        coverage: every operation that met a decomposed tensor, in order of first use.
    """

    coverage: list[Covered] = field(default_factory=list)


def preflight(
    config: RunConfig,
    progress: Progress | None = None,
    *,
    files: bool = False,
    results: Path | None = None,
) -> Preflight:
    """Checks data files, weights, rules, conservation and replay, on the split's first sample.

    Goes on after a failure with whatever does not depend on it; raises nothing that a user can
    mend.

    Args:
        config: a run's.
        progress: where to show progress.
        files: read every file that samples are loaded from.
        results: the config's results, whose figures are named (default: ``results/<name>``).
    """
    checks, progress = Preflight(), progress or Silent()
    device = checks.attempt("device", lambda: start(config))
    dataset = checks.attempt("data", lambda: build_dataset(config, progress, tolerant=True))
    if dataset is not None:
        _data(checks, config, dataset)
        if files:
            check_contents(checks, dataset, progress)
    built = checks.attempt(
        "checkpoint", lambda: build_network(config, device or torch.device("cpu"))
    )
    if built is not None:
        _checkpoint(checks, config, built)
        check_published(checks, config, built, results or Path("results") / config.name)
    sample = None if dataset is None else checks.attempt("first sample", lambda: dataset[0])
    if sample is not None:
        checks.add("first sample", True, f"{sample.name} is readable")
    if device is not None and built is not None and sample is not None:
        encoded = checks.attempt("encode", lambda: encode(built.network, [sample], device))
        if encoded is not None:
            _rules(checks, config, built, encoded, progress)
    return checks


def _data(checks: Preflight, config: RunConfig, dataset: Samples) -> None:
    data = config.data
    if not isinstance(data, DataConfig):
        checks.add("data", True, f"{len(dataset)} samples of {data.target}")
        _schedule(checks, config, len(dataset))
        return
    scenes = len(dataset.scene_names)
    what = f"{len(dataset)} samples in {scenes} scenes of {split_name(data.split)}"
    checks.add("data", True, f"{what} ({data.version}, {dataset.dataroot})")
    if dataset.absent_scenes:
        first = ", ".join(dataset.absent_scenes[:3])
        checks.note(
            "absent scenes",
            f"{len(dataset.absent_scenes)} scenes of {split_name(data.split)} are not in "
            f"{data.version}: {first}, ...",
        )
    if not isinstance(dataset, CustomSamples):
        check_tables(checks, dataset)
        check_files(checks, dataset)
    _schedule(checks, config, len(dataset))


def _schedule(checks: Preflight, config: RunConfig, samples: int) -> None:
    """A split too small for the protocol stops ``lmd evaluate`` only: a note."""
    try:
        plan = Schedule.resolve(samples, config.perturbation.stride, config.perturbation.count)
    except LmdError as error:
        checks.note("schedule", f"lmd evaluate cannot run: {error}")
        return
    checks.add(
        "schedule", True, f"N {plan.samples}, stride {plan.stride}, {plan.count} partners each"
    )


def _checkpoint(checks: Preflight, config: RunConfig, built: BuiltNetwork) -> None:
    if built.random:
        checks.note("checkpoint", f"{built.checkpoint}: predictions mean nothing")
        return
    keys = len(built.network.state_dict())
    if config.model.checkpoint is None:
        checks.add("checkpoint", True, f"{built.checkpoint}: {keys} keys, sha256 {built.sha256}")
        return
    checks.add("checkpoint", True, f"{built.checkpoint}: {keys} keys fit, sha256 {built.sha256}")


def _rules(
    checks: Preflight,
    config: RunConfig,
    built: BuiltNetwork,
    encoded: tuple[Features, Features],
    progress: Progress,
) -> None:
    """Coverage, conservation in both precisions, and replay, for every variant."""
    variants = [Variant.parse(name) for name in config.variants]
    progress.start(2 * len(variants), "decomposing the first sample")
    name = "rules"
    for variant in variants:
        result = checks.attempt(name, lambda v=variant: split(built, *encoded, config, v))  # type: ignore[misc]
        if result is None:
            return progress.close()
        if not checks.coverage:
            _coverage(checks, result)
        _conservation(checks, variant, result, torch.float32)
        progress.advance(note=f"{variant} float32")
    built.network.double()
    features, constants = (pytree.tree_map(_doubled, tree) for tree in encoded)
    for variant in variants:
        _double_precision(checks, config, built, (features, constants), variant)
        progress.advance(note=f"{variant} float64")
    return progress.close()


def _doubled(value: Any) -> Any:
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if floating else value


def _coverage(checks: Preflight, result: Decomposition) -> None:
    checks.coverage += [
        Covered(module, operation, rule.kind, rule.equation)
        for (module, operation), rule in result.coverage.items()
    ]
    kinds = Counter(entry.kind for entry in checks.coverage)
    counts = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    checks.add("rules", True, f"all {len(checks.coverage)} operations have one: {counts}")
    constants = [
        f"{e.operation} in {e.module or '(root)'}" for e in checks.coverage if e.kind == "constant"
    ]
    checks.add("constants of the operating point", True, "; ".join(constants) or "none")


def _conservation(
    checks: Preflight, variant: Variant, result: Decomposition, dtype: torch.dtype
) -> None:
    # The secant slope of softmax makes parts many times the total, and rounding is the parts'.
    name = "parts_residual" if variant.softmax == "secant" else "residual"
    residuals = {record.order: getattr(record, name) for record in result.operations}
    worst = result.operations[max(residuals, key=lambda order: _size(residuals[order]))]
    limit = OPERATION[dtype]
    precision = str(dtype).removeprefix("torch.")
    checks.add(
        f"conservation, {variant}, {precision}",
        residuals[worst.order] < limit,
        f"largest {name.replace('_', ' ')} {residuals[worst.order]:.1e} "
        f"({worst.operation} in {worst.module or '(root)'}), "
        f"limit {limit:.0e}, {len(result.operations)} operations",
    )


def _size(residual: float) -> float:
    """A residual to be compared; one that is no number is larger than any."""
    return inf if isnan(residual) else residual


def _double_precision(
    checks: Preflight,
    config: RunConfig,
    built: BuiltNetwork,
    encoded: tuple[Features, Features],
    variant: Variant,
) -> None:
    features, constants = encoded
    result = split(built, features, constants, config, variant, keep_maps=True)
    _conservation(checks, variant, result, torch.float64)
    fuse = fuse_function(built.network, config.model.output, constants)
    _plain(checks, variant, result, fuse, features)
    name = f"replay of eq. 14, {variant}"
    again = checks.attempt(name, lambda: replay(result, features))
    if again is not None:
        worst, limit = replay_deviation(again, result), DOUBLE.replay
        detail = f"largest deviation {worst:.1e} of the largest part, limit {limit:.0e}"
        if not worst <= limit:
            detail += f"; {locate_deviation(fuse, features, variant, built.network, limit)}"
        checks.add(name, worst <= limit, detail)
    times = magnification(result.total, {**result.parts, BIAS: result.bias})
    if (message := large_parts_message(variant, times)) is not None:
        checks.note(f"size of the parts, {variant}", message)


def _plain(
    checks: Preflight, variant: Variant, result: Decomposition, fuse: Any, features: Features
) -> None:
    """The network as it is gives the total."""
    name = f"total is the plain network's, {variant}"

    def run() -> torch.Tensor:
        with torch.no_grad():
            plain: torch.Tensor = fuse(**map_tensors(torch.clone, features))
        return plain

    plain = checks.attempt(name, run)
    if plain is not None:
        apart, limit = deviation({BIAS: (result.total, plain)}), DOUBLE.total
        same = "the same bits" if torch.equal(result.total, plain) else f"{apart:.1e} apart"
        checks.add(name, apart <= limit, f"{same}, limit {limit:.0e}")
