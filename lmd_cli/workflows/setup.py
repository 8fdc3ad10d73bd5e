"""What every rank of an evaluation sets up alike: data, network, schedule, methods, threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lmd_cli.assembly.build import BuiltNetwork, build_dataset, build_network
from lmd_cli.attribution import ForwardMethod, method_named, require_maps
from lmd_cli.attribution.linearised import Lmd, Relinearised
from lmd_cli.config.schema import RunConfig, is_custom
from lmd_cli.data import default_workers
from lmd_cli.decomposition import Variant
from lmd_cli.evaluation.comparisons import Cell, measured_cells, table_cells
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
    variants: list[str]
    rivals: list[ForwardMethod]
    cells: list[Cell]
    threads: int
    compute: Compute
    workers: int = 0

    @property
    def open_threads(self) -> str:
        """What the run's notes say of threads that the config leaves open."""
        return threads_note(self.config, self.threads, self.device)

    @property
    def names(self) -> list[str]:
        """Of the table's rows: variants of LMD, then other methods."""
        return [*self.variants, *(method.name for method in self.rivals)]

    def _where(self) -> dict[str, str]:
        """The config file, beside which a report looks for the targets' modules again."""
        source = self.config.source
        own = is_custom(self.config.model) or is_custom(self.config.data)
        return {"config_file": str(source.resolve())} if own and source is not None else {}

    def record(self) -> dict[str, Any]:
        """The part of ``run.json`` that identifies the run."""
        asked = {"rows": self.names} if self.names != list(self.config.variants) else {}
        if self.cells != measured_cells(self.built.network.modalities):
            asked["perturbed"] = list(dict.fromkeys(cell.perturbed_name for cell in self.cells))
        if lacking := getattr(self.dataset, "left_out", None):
            asked["without"] = list(lacking)
        return {
            **identity(self.config, self.built, self.dataset.tokens, self.threads, self.device),
            **self._where(),
            **asked,
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
    tolerant: bool = False,
) -> Run:
    """Opens the data and the network and resolves methods, threads, device, precision and schedule.

    Args:
        table_only: as in :func:`lmd_cli.workflows.evaluate.evaluate`.
        rank: which of several processes this is.
        recorded: the record of the run that this one goes on with, if any.
        tolerant: also if some samples cannot be read.
    """
    variants, rivals = resolve_methods(methods or ("lmd",), config.variants)
    if relinearise:
        variants, rivals = [], [*map(Relinearised, variants), *rivals]
    device = resolve_device(config.device if rank is None else _own_device(config.device, rank))
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
    dataset = build_dataset(config, progress, tolerant=tolerant)
    settings = config.perturbation
    schedule = Schedule.resolve(len(dataset), settings.stride, settings.count)
    cells = (table_cells if table_only else measured_cells)(built.network.modalities)
    asked = (variants, rivals, cells)
    workers = _workers(config, device, rank)
    return Run(config, dataset, built, device, schedule, *asked, threads, compute, workers)


def _workers(config: RunConfig, device: torch.device, rank: Rank | None) -> int:
    """The config's; else those that pay. A data set of the user's own may not bear to be read
    from several processes: none unless asked for."""
    if config.workers is not None:
        return config.workers
    if is_custom(config.data):
        return 0
    return default_workers(available_cores() // (1 if rank is None else rank.local_size), device)


def _own_device(name: str, rank: Rank) -> str:
    return rank.device(name, torch.cuda.device_count() if torch.cuda.is_available() else 0)


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
