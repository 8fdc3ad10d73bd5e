"""The setup of an evaluation, alike on every rank: data, network, schedule, methods, threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from lmd_cli.assembly.build import BuiltNetwork, build_dataset, build_network
from lmd_cli.attribution import ForwardMethod, method_named, require_maps
from lmd_cli.attribution.linearised import Lmd, Relinearised
from lmd_cli.config.schema import RunConfig, is_custom
from lmd_cli.data import default_workers
from lmd_cli.decomposition import Variant
from lmd_cli.evaluation.comparisons import Comparison, measured_comparisons, table_comparisons
from lmd_cli.evaluation.measure import Task
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.results.record import identity
from lmd_cli.runtime.compute import Compute, resolve_compute, resolve_device
from lmd_cli.runtime.ranks import Rank
from lmd_cli.runtime.threads import available_cores, resolve_threads, threads_note
from lmd_cli.workflows.ranks import Progress


@dataclass(frozen=True)
class Run:
    """Everything that a run needs, resolved once."""

    config: RunConfig
    dataset: Any
    built: BuiltNetwork
    device: torch.device
    schedule: Schedule
    variants: list[Variant]
    baselines: list[ForwardMethod]
    comparisons: list[Comparison]
    threads: int
    compute: Compute
    workers: int = 0
    skip_errors: bool = False
    command: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """See :func:`~lmd_cli.results.record.identity`; the first samples are computed for it."""
        return identity(self.config, self.built, self.dataset, self.threads, self.device)

    @property
    def task(self) -> Task:
        """What is measured at every sample."""
        network, output = self.built.network, self.config.model.output
        return Task(network, output, self.comparisons, self.variants, self.baselines)

    @property
    def open_threads(self) -> str:
        """What the run's notes say of threads that the config leaves open."""
        return threads_note(self.config, self.threads, self.device)

    @property
    def names(self) -> list[str]:
        """Of the table's rows: variants of LMD, then other methods."""
        return [v.name for v in self.variants] + [method.name for method in self.baselines]

    def _where(self) -> dict[str, str]:
        """The config file, beside which a report looks for the targets' modules again."""
        source = self.config.source
        own = is_custom(self.config.model) or is_custom(self.config.data)
        return {"config_file": str(source.resolve())} if own and source is not None else {}

    def record(self) -> dict[str, Any]:
        """The part of ``run.json`` that identifies the run."""
        asked = {"rows": self.names} if self.names != list(self.config.variants) else {}
        if self.comparisons != measured_comparisons(self.built.network.modalities):
            perturbed = (comparison.perturbed_name for comparison in self.comparisons)
            asked["perturbed"] = list(dict.fromkeys(perturbed))
        if lacking := getattr(self.dataset, "left_out", None):
            asked["without"] = list(lacking)
        return {
            **self.identity,
            **self._where(),
            **asked,
            "command": dict(self.command),
            "schedule": {"stride": self.schedule.stride, "count": self.schedule.count},
            "compute": self.compute.record(),
        }


def prepare(
    config: RunConfig,
    progress: Progress | None = None,
    methods: Sequence[str] = (),
    relinearise: bool = False,
    table_only: bool = False,
    *,
    rank: Rank | None = None,
    recorded: Mapping[str, Any] | None = None,
    skip_errors: bool = False,
    limit: int | None = None,
) -> Run:
    """Opens the data and the network and resolves methods, threads, device, precision and schedule.

    Args:
        table_only: as in :func:`lmd_cli.workflows.evaluate.evaluate`.
        rank: which of several processes this is.
        recorded: the record of the run that this one goes on with, if any.
        skip_errors: leave samples out that cannot be read.
        limit: only the first samples of the cycle; for the record.
    """
    command = {
        "name": "evaluate",
        "methods": list(methods or ("lmd",)),
        "relinearise": relinearise,
        "table_only": table_only,
        "limit": limit,
        "on_error": "skip" if skip_errors else "stop",
    }
    variants, baselines = resolve_methods(methods or ("lmd",), config.variants)
    if relinearise:
        variants, baselines = [], [*map(Relinearised, variants), *baselines]
    device = resolve_device(config.device if rank is None else own_device(config.device, rank))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    shared = None if rank is None else rank.local_size
    threads = resolve_threads(config, device, shared, recorded)
    # Whatever a launcher chose: a convolution's sums depend on it.
    torch.set_num_threads(threads)
    # Weights first: what is wrong with them shows before a synthetic root is made.
    built = build_network(config, device)
    compute = resolve_compute(config.compute, device, recorded, built.network)
    compute.apply(built.network)
    dataset = build_dataset(config, progress, tolerant=skip_errors)
    settings = config.perturbation
    schedule = Schedule.resolve(len(dataset), settings.stride, settings.count)
    comparisons = (table_comparisons if table_only else measured_comparisons)(
        built.network.modalities
    )
    return Run(
        config,
        dataset,
        built,
        device,
        schedule,
        variants,
        baselines,
        comparisons,
        threads,
        compute,
        _workers(config, device, rank),
        skip_errors,
        command,
    )


def _workers(config: RunConfig, device: torch.device, rank: Rank | None) -> int:
    """The config's; else those that pay. A data set of the user's own may not bear to be read
    from several processes: none unless asked for."""
    if config.workers is not None:
        return config.workers
    if is_custom(config.data):
        return 0
    return default_workers(available_cores() // (1 if rank is None else rank.local_size), device)


def own_device(name: str, rank: Rank) -> str:
    """The device of one of several processes, of a config's ``device``."""
    return rank.device(name, torch.cuda.device_count() if torch.cuda.is_available() else 0)


def resolve_methods(
    methods: Sequence[str], configured: Sequence[str]
) -> tuple[list[Variant], list[ForwardMethod]]:
    """The variants of LMD and the other methods that are meant.

    Args:
        methods: names; ``lmd`` stands for the configured variants.
        configured: variants.

    Raises:
        MethodError: an unknown method, or one that gives no maps.
    """
    variants: list[Variant] = []
    baselines: dict[str, ForwardMethod] = {}
    for name in methods:
        if name == "lmd":
            variants += map(Variant.parse, configured)
            continue
        method = method_named(name)
        if isinstance(method, Lmd):
            variants.append(method.variant)
        else:
            baselines[method.name] = require_maps(method)
    return list(dict.fromkeys(variants)), list(baselines.values())
