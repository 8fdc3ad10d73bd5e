"""The perturbation protocol (Appendix D.4) on a network and data that are in memory already.

``lmd evaluate`` does the same for a config, with resuming and several processes, and writes a
folder; here nothing is written, and metrics may be the caller's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

from lmd_cli.assembly.contract import require_network
from lmd_cli.assembly.forward import encode_batch
from lmd_cli.assembly.targets import user_code
from lmd_cli.data import collate, to_device
from lmd_cli.data.custom import CustomSamples
from lmd_cli.decomposition import Variant
from lmd_cli.errors import ConfigError, ContractError, MethodError
from lmd_cli.evaluation.measure import verified_samples
from lmd_cli.evaluation.metrics import mse, pcc
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.evaluation.walk import Encoder, walk
from lmd_cli.report.words import counted
from lmd_cli.workflows.in_memory_rows import Metric, measure_visits
from lmd_cli.workflows.setup import resolve_methods

METRICS: dict[str, Metric] = {"pcc": pcc, "mse": mse}
#: Partners of each sample, as in the paper.
PARTNERS = 12


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What :func:`evaluate` measured.

    Attributes:
        metrics: names, in order.
        pairs: one row for each sample, offset, variant (or method) and comparison:
            ``sample_token``, ``perturbed_token``, ``offset``, ``variant``, ``perturbed``,
            ``target``, ``expected`` (keep or change), ``comparison`` (``R_p/C``), and one column
            for each metric.
        samples: one row for each sample and variant: ``sample_token``, ``variant``, ``residual``,
            and ``share_NAME``, each part's L2 norm over the sum of the norms; a method that is not
            LMD has no residual.
    """

    metrics: tuple[str, ...]
    pairs: pd.DataFrame
    samples: pd.DataFrame

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row for each variant and comparison: ``METRIC_mean``, ``METRIC_std`` (ddof 0) over
        the pairs where the metric exists, and ``pairs``, their number with the others."""
        keys = ["variant", "comparison", "expected"]
        groups = self.pairs.groupby(keys, sort=False)[list(self.metrics)]
        means, spreads = groups.mean(), groups.std(ddof=0)
        columns = {
            f"{name}_{what}": frame[name]
            for name in self.metrics
            for what, frame in (("mean", means), ("std", spreads))
        }
        return pd.DataFrame({**columns, "pairs": groups.size()}).reset_index()

    def scalars(self) -> dict[str, float]:
        """Means by name, for a tracker: ``share/camera``, ``residual`` (the largest), and
        ``R_p/C/pcc``; of several variants each behind the variant's name."""
        several = self.samples["variant"].nunique() > 1
        values: dict[str, float] = {}
        for variant, rows in self.samples.groupby("variant", sort=False):
            begin = f"{variant}/" if several else ""
            shares = [name for name in rows.columns if name.startswith("share_")]
            values |= {f"{begin}{n.replace('_', '/', 1)}": float(rows[n].mean()) for n in shares}
            if rows["residual"].notna().any():
                values[f"{begin}residual"] = float(rows["residual"].max())
            for row in self.summary[self.summary["variant"] == variant].to_dict("records"):
                values |= {
                    f"{begin}{row['comparison']}/{name}": float(row[f"{name}_mean"])
                    for name in self.metrics
                }
        return values

    def __repr__(self) -> str:
        count = self.samples["sample_token"].nunique()
        table = self.summary.to_string(index=False)
        return f"Evaluation of {count} samples, {len(self.pairs)} pairs\n{table}"

    def _repr_html_(self) -> str:
        return str(self.summary.to_html(index=False, float_format="{:.3g}".format))


def evaluate(
    network: nn.Module,
    loader: Any,
    metrics: Sequence[str | Metric] | Mapping[str, Metric] = ("pcc", "mse"),
    *,
    output: str | None = None,
    variants: Sequence[str | Variant] = ("identity-ratio",),
    methods: Sequence[str] = ("lmd",),
    count: int | None = None,
    stride: int | Literal["auto"] = "auto",
    limit: int | None = None,
) -> Evaluation:
    """Replaces each modality by other samples': which parts change, and which keep still?

    The network is put in evaluation mode for the time being, on the device where its weights are;
    its weights, its mode and torch's random numbers are left as they were.

    Args:
        network: has ``modalities``, ``encode(batch)`` and ``fuse(features)``.
        loader: a map-style data set of dicts of tensors without a batch dimension, or a
            ``DataLoader`` of one, whose ``collate_fn`` is used (its batch size and order are not:
            partners are looked up by index).
        metrics: of a part after and before a replacement: ``pcc``, ``mse``, or functions of two
            tensors ``(1, ...)`` that give a number; a dict names them.
        output: which output of ``fuse``; the only one if none.
        variants: rules of LMD.
        methods: by the names that ``lmd evaluate --method`` takes; ``lmd`` stands for ``variants``.
        count: partners of each sample; 12 if none, or as many as there are other samples.
        stride: between partners; see :class:`~lmd_cli.evaluation.schedule.Schedule`.
        limit: only the first samples of the cycle.

    Raises:
        ContractError: a network, data or a metric that breaks its contract.
        ConfigError: too few samples, or two metrics of one name.
        MethodError: an unknown metric, variant or method, or a method that gives no maps.
        DataError, RunError: as ``lmd evaluate``.
    """
    require_network(network, "the first argument", tuple(getattr(network, "modalities", ())))
    chosen, rules = _named(_listed(metrics)), _parsed(_listed(variants))
    asked, others = resolve_methods(_listed(methods), [rule.name for rule in rules])
    samples = _samples(loader)
    partners = _partners(count, len(samples))
    schedule = Schedule.resolve(len(samples), stride, partners)
    with _undisturbed(network) as device:
        name = output or _only_output(network, samples, device)
        encode = Encoder(network, samples, device)  # type: ignore[arg-type]
        last = min(limit or schedule.samples, schedule.samples)
        visits = walk(schedule, encode, 0, last, verified_samples(schedule))
        pairs, rows = measure_visits(network, name, visits, chosen, asked, others)
    return Evaluation(tuple(chosen), pairs, rows)


# -- what is given ------------------------------------------------------------------------


def _partners(count: int | None, samples: int) -> int:
    """How many other samples each is replaced by.

    Raises:
        ConfigError: there are not so many.
    """
    needed = 2 if count is None else count + 1
    if samples < needed:
        asked = "" if count is None else f"count is {count}, but "
        raise ConfigError(
            f"{asked}the data set has {counted(samples, 'sample')}: at least {needed} are needed, "
            "as each modality is replaced by those of other samples"
        )
    return min(PARTNERS, samples - 1) if count is None else count


def _listed(given: Any) -> Any:
    """A name alone is one of one."""
    return (given,) if isinstance(given, str) else given


def _named(metrics: Sequence[str | Metric] | Mapping[str, Metric]) -> dict[str, Metric]:
    if isinstance(metrics, Mapping):
        return dict(metrics)
    chosen: dict[str, Metric] = {}
    for metric in metrics:
        name = metric if isinstance(metric, str) else _own_name(metric)
        if isinstance(metric, str) and metric not in METRICS:
            known = ", ".join(METRICS)
            raise MethodError(
                f"metric {metric!r} is not one of {known}; give a function for your own"
            )
        if name in chosen:
            raise ConfigError(f"two metrics are called {name!r}: give a dict of names")
        chosen[name] = METRICS[metric] if isinstance(metric, str) else metric
    return chosen


def _own_name(metric: Metric) -> str:
    return getattr(metric, "__name__", type(metric).__name__)


def _parsed(variants: Sequence[str | Variant]) -> list[Variant]:
    try:
        return [Variant.parse(variant) for variant in variants]
    except ValueError as error:
        raise MethodError(str(error)) from None


class _Collated:
    """A data set with a loader's ``collate_fn``; all else is the data set's."""

    def __init__(self, dataset: Any, collate_fn: Any):
        self._dataset, self.collate = dataset, collate_fn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]


def _samples(loader: Any) -> CustomSamples:
    if not isinstance(loader, DataLoader):
        return CustomSamples(loader, "the second argument", user_code)
    if isinstance(loader.dataset, torch.utils.data.IterableDataset):
        raise ContractError(
            "the loader's data set is iterable; partners are looked up by index: give a map-style "
            "data set, or list(dataset)"
        )
    return CustomSamples(_Collated(loader.dataset, loader.collate_fn), "the loader", user_code)


@contextmanager
def _undisturbed(network: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode; afterwards every module's mode and torch's random numbers are as before."""
    modes = [(module, module.training) for module in network.modules()]
    weight = next(network.parameters(), None)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            network.eval()
            yield torch.device("cpu") if weight is None else weight.device
        finally:
            for module, training in modes:
                module.training = training


def _only_output(network: Any, samples: CustomSamples, device: torch.device) -> str:
    """The name of what ``fuse`` gives.

    Raises:
        ContractError: it is not one output.
    """
    sample = samples[0]
    batch = to_device(collate([sample]), device)
    features, constants = encode_batch(network, batch, sample.token)
    kind = type(network).__name__
    with user_code(f"{kind}.fuse"):
        outputs = network.fuse(features, **constants)
    if not isinstance(outputs, Mapping) or len(outputs) != 1:
        given = ", ".join(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__
        raise ContractError(f"{kind}.fuse gave {given}; say which output with output=...")
    return str(next(iter(outputs)))
