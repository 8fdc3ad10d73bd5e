"""The measurement of one sample: its rows for ``pairs.csv`` and ``samples.csv``.

What the variants give is first computed as one tensor. Nothing waits for a GPU in between, so that
all of it can be recorded as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmd_cli.assembly.contract import FusionNetwork
from lmd_cli.assembly.forward import Fused
from lmd_cli.attribution import ForwardMethod
from lmd_cli.decomposition import Variant
from lmd_cli.evaluation.baselines import Baselines
from lmd_cli.evaluation.comparisons import Comparison
from lmd_cli.evaluation.exactness_check import ExactnessCheck
from lmd_cli.evaluation.metrics import mse_rows, pcc_rows, vehicle_counts
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.evaluation.variants import Prediction, VariantPredictions
from lmd_cli.evaluation.walk import Encoding, Skipped, Visit
from lmd_cli.runtime.compute import Chunks
from lmd_cli.runtime.cuda_graphs import Graph

#: The first samples of the walk whose parts are compared with a literal replay.
VERIFIED = 2

#: PCC and MSE.
Pair = tuple[float, float]


@dataclass(frozen=True)
class Task:
    """What is measured at every sample.

    Attributes:
        network, output: what is explained.
        comparisons: which modalities are replaced, and whose prediction is compared.
        variants: of LMD.
        baselines: the other methods.
    """

    network: FusionNetwork
    output: str
    comparisons: Sequence[Comparison]
    variants: Sequence[Variant] = ()
    baselines: Sequence[ForwardMethod] = ()


@dataclass(frozen=True)
class Rows:
    """Rows in the order of ``PAIR_FIELDS`` and ``SAMPLE_FIELDS``."""

    pairs: list[tuple[Any, ...]]
    sample: tuple[Any, ...]


def verified_samples(schedule: Schedule) -> frozenset[int]:
    """Indices of the samples whose features the replay needs: the verified, and a partner."""
    visited = min(VERIFIED, schedule.samples)
    own = {schedule.sample(position) for position in range(visited)}
    return frozenset(own | {schedule.partner(position, 1) for position in range(visited)})


def measure(task: Task, visit: Visit, recorded: RecordedNumbers | None = None) -> Rows:
    """Decomposes a sample under every variant, and by every baseline, and compares clean with
    perturbed parts.

    Args:
        task: what is measured.
        visit: the sample and its partners.
        recorded: gives the variants' numbers from a CUDA graph.

    Raises:
        RunError: a variant's parts are not exact: they do not sum to the total, are not what the
            linearised network gives, or the total is not the plain network's.
    """
    if isinstance(visit.sample, Skipped):
        reason = " ".join(visit.sample.reason.split())
        status = f"skipped: {reason}"
        return Rows([], (visit.position, visit.sample.token, status, 0, "", None, None, None, None))
    predictions = VariantPredictions(task.network, visit, task.output)
    check = ExactnessCheck(task.network, visit, task.output, predictions)
    with check.located(task.variants):
        return _measured(task, visit, recorded, check)


def _measured(
    task: Task, visit: Visit, recorded: RecordedNumbers | None, check: ExactnessCheck
) -> Rows:
    assert isinstance(visit.sample, Encoding)
    tensors = _tensors(task, visit, check.predictions, recorded)
    numbers = read_numbers(tensors, task.variants, task.network.modalities, visit)
    counts = _counts(visit.sample, tensors["total"]) if task.variants else (None, None)
    residuals = [
        check.conserving(v, own.residual, own.parts_residual, tensors["total"])
        for v, own in numbers.items()
    ]
    rows = [row for v, own in numbers.items() for row in _variant_rows(task, visit, v, own)]
    verified = task.variants if visit.position < VERIFIED else ()
    deviations = [check.verified(variant) for variant in verified]
    if task.baselines:
        baselines = Baselines(task.network, visit, task.output, check.predictions)
        measured = baselines.measure_all(task.baselines, task.comparisons)
        counts = _counts(visit.sample, baselines.total)
        rows += [
            _row(visit, m, method.name, comparison, values[comparison])
            for method in task.baselines
            for m, values in measured[method.name].items()
            for comparison in task.comparisons
        ]
    pairs = sorted(rows, key=_offset)  # stable: variants and methods stay in order
    return Rows(pairs, _sample_row(visit, len(pairs), counts, residuals, deviations))


def _offset(row: tuple[Any, ...]) -> int:
    return int(row[2])


def _tensors(
    task: Task, visit: Visit, predictions: VariantPredictions, recorded: RecordedNumbers | None
) -> dict[str, Tensor]:
    """From the graph, if there is one; features that are not finite are measured without it."""
    tensors = None if recorded is None else recorded(visit)
    if tensors is not None and bool(torch.isfinite(tensors["numbers"][0])):
        return tensors
    return as_tensor(predictions, task.variants)


def _counts(sample: Encoding, total: Tensor) -> tuple[int | None, int | None]:
    truth = sample.tensors.get("segmentation")
    if truth is None or truth.shape != total.shape:
        return None, None
    valid = sample.tensors.get("valid")
    return vehicle_counts(total, truth, torch.ones_like(truth) if valid is None else valid)


def _sample_row(
    visit: Visit, pairs: int, counts: Any, residuals: list[float], deviations: list[float]
) -> tuple[Any, ...]:
    missing = " ".join(p.token for p in visit.partners if isinstance(p, Skipped))
    deviation = max(deviations) if deviations else None
    status = (visit.position, visit.sample.token, "ok", pairs, missing)
    return (*status, *counts, max(residuals, default=None), deviation)


def _variant_rows(
    task: Task, visit: Visit, variant: Variant, numbers: Numbers
) -> list[tuple[Any, ...]]:
    """For each offset, one row for each comparison."""

    def values(comparison: Comparison, m: int) -> Pair:
        changes = comparison.expected == "change"
        return numbers.moved[comparison.target][m] if changes else numbers.kept[comparison.target]

    return [
        _row(visit, m, variant.name, comparison, values(comparison, m))
        for m, partner in enumerate(visit.partners, start=1)
        if isinstance(partner, Encoding)
        for comparison in task.comparisons
    ]


def _row(visit: Visit, m: int, name: str, comparison: Comparison, values: Pair) -> tuple[Any, ...]:
    """One line of ``pairs.csv``."""
    tokens = (visit.sample.token, visit.partners[m - 1].token)
    return (*tokens, m, name, comparison.perturbed_name, comparison.target, *values)


# -- the variants' numbers ----------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """A variant at one visit.

    Attributes:
        residual, parts_residual: of conservation, as :class:`~.variants.Prediction`'s.
        kept: for each modality, its clean part compared with itself: the linearisation is the
            clean sample's, so that a part whose sensor was kept is the clean part.
        moved: for each modality and offset, its part from the partner compared with the clean one.
    """

    residual: float
    parts_residual: float
    kept: dict[str, Pair]
    moved: dict[str, dict[int, Pair]]


def as_tensor(predictions: VariantPredictions, variants: Sequence[Variant]) -> dict[str, Tensor]:
    """All variants' numbers in a row ``(n,)``, float64, and the total."""
    tensors: dict[str, Tensor] = {}
    values: list[Tensor] = []
    for variant in variants:
        prediction = predictions.under(variant)
        values += _numbers(prediction)
        tensors["total"] = prediction.total
    if values:
        tensors["numbers"] = torch.cat([v.double().reshape(-1) for v in values])
    return tensors


def _numbers(prediction: Prediction) -> list[Tensor]:
    parts = prediction.parts
    kept = [_compared([part], part) for part in parts.values()]
    moved = [
        _compared([x for x in maps if x is not None], parts[name])
        for name, maps in prediction.perturbed.items()
    ]
    return [prediction.residual, prediction.parts_residual, *kept, *moved]


def _compared(maps: Sequence[Tensor], with_: Tensor) -> Tensor:
    """PCC and MSE of each map ``(n, 2)``."""
    if not maps:
        return with_.new_zeros(0, 2)
    rows = torch.stack(list(maps))
    return torch.stack([pcc_rows(rows, with_), mse_rows(rows, with_)], dim=1)


def read_numbers(
    tensors: Mapping[str, Tensor],
    variants: Sequence[Variant],
    modalities: Sequence[str],
    visit: Visit,
) -> dict[Variant, Numbers]:
    """What :func:`as_tensor` put in a row, by variant."""
    values = iter(tensors["numbers"].tolist() if "numbers" in tensors else ())
    readable = [m for m, p in enumerate(visit.partners, start=1) if isinstance(p, Encoding)]

    def pair() -> Pair:
        return next(values), next(values)

    return {
        variant: Numbers(
            next(values),
            next(values),
            {name: pair() for name in modalities},
            {name: {m: pair() for m in readable} for name in modalities},
        )
        for variant in variants
    }


class RecordedNumbers:
    """:func:`as_tensor` of visits behind a linear fusion layer, as a CUDA graph.

    Args:
        task: what is measured.
        chunks: of all visits.
    """

    def __init__(self, task: Task, chunks: Chunks):
        self._task, self._chunks = task, chunks
        self._graph = Graph(self._run, "the decomposition")

    def __call__(self, visit: Visit) -> dict[str, Tensor] | None:
        """Nothing where a partner is missing: such a visit is not like the others."""
        samples = [visit.sample, *visit.partners]
        fused = [x.fused for x in samples if isinstance(x, Encoding) and x.fused is not None]
        if len(fused) < len(samples):
            return None
        clean = fused[0]
        return self._graph(  # type: ignore[no-any-return]
            {
                "total": clean.total,
                "parts": clean.parts,
                "bias": clean.bias,
                "partners": [x.parts for x in fused[1:]],
            }
        )

    def _run(self, tree: dict[str, Any]) -> dict[str, Tensor]:
        sample = Fused(tree["total"], tree["parts"], tree["bias"])
        partners: list[Encoding | Skipped] = [
            Encoding(0, "", Fused(tree["total"], parts, None), None) for parts in tree["partners"]
        ]
        visit = Visit(0, Encoding(0, "", sample, None), partners, self._chunks)
        predictions = VariantPredictions(self._task.network, visit, self._task.output)
        return as_tensor(predictions, self._task.variants)
