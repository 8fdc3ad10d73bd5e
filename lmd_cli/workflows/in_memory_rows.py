"""The rows of an evaluation in memory: every metric of every part, clean and with replacements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from lmd_cli.assembly.targets import user_code
from lmd_cli.attribution import ForwardMethod
from lmd_cli.decomposition import Variant
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.evaluation.baselines import Baselines, Moved, in_order
from lmd_cli.evaluation.comparisons import Comparison, measured_comparisons
from lmd_cli.evaluation.exactness_check import ExactnessCheck
from lmd_cli.evaluation.measure import VERIFIED
from lmd_cli.evaluation.variants import Prediction, VariantPredictions
from lmd_cli.evaluation.walk import Visit

#: Compares a part after and before a replacement, both of the output's shape with a batch of 1.
Metric = Callable[[Tensor, Tensor], "float | Tensor"]


def measure_visits(
    network: Any,
    output: str,
    visits: Iterable[Visit],
    metrics: Mapping[str, Metric],
    variants: Sequence[Variant],
    methods: Sequence[ForwardMethod],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames ``pairs`` and ``samples`` of an :class:`~.in_memory.Evaluation`.

    Args:
        network, output: what is explained.
        visits: the samples with their partners.
        metrics, variants, methods: what is measured, by which rules, and by which other methods.

    Raises:
        RunError: the parts of LMD do not sum to the total, or are not the linearised network's.
        ContractError: a metric fails.
    """
    comparisons = measured_comparisons(network.modalities)
    pairs: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    for visit in visits:
        predictions = VariantPredictions(network, visit, output)
        check = ExactnessCheck(network, visit, output, predictions)
        with check.located(variants):
            for variant in variants:
                prediction = predictions.under(variant)
                samples.append(_sample_row(visit, variant, prediction, check))
                moved = _moved(visit, prediction, comparisons)
                pairs += _pair_rows(visit, variant.name, moved, metrics)
        if methods:
            baselines = Baselines(network, visit, output, predictions)
            rows = {
                m.name: _baseline_rows(m, baselines, visit, comparisons, metrics)
                for m in in_order(methods)
            }
            for method in methods:
                samples.append(rows[method.name][0])
                pairs += rows[method.name][1]
    return pd.DataFrame(pairs), pd.DataFrame(samples)


def _sample_row(
    visit: Visit, variant: Variant, prediction: Prediction, check: ExactnessCheck
) -> dict[str, Any]:
    """Conservation, checked, and each part's share.

    Raises:
        RunError: the parts do not sum to the total, or are not the linearised network's.
    """
    residuals = (float(prediction.residual), float(prediction.parts_residual))
    residual = check.conserving(variant, *residuals, prediction.total)
    if visit.position < VERIFIED:
        check.verified(variant)
    parts = {**prediction.parts, BIAS: prediction.total - sum(prediction.parts.values())}
    return _shares(visit, variant.name, residual, parts)


def _shares(
    visit: Visit, name: str, residual: float, parts: Mapping[str, Tensor]
) -> dict[str, Any]:
    norms = {part: float(value.double().norm()) for part, value in parts.items()}
    scale = sum(norms.values()) or 1.0
    shares = {f"share_{part}": norm / scale for part, norm in norms.items()}
    return {"sample_token": visit.sample.token, "variant": name, "residual": residual, **shares}


def _baseline_rows(
    method: ForwardMethod,
    baselines: Baselines,
    visit: Visit,
    comparisons: Sequence[Comparison],
    metrics: Mapping[str, Metric],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A sample's row and its pairs', of a method whose parts are not checked for conservation."""
    clean, moved = baselines.compare(method, comparisons)
    pairs = list(_pair_rows(visit, method.name, moved, metrics))
    titles = [comparison.title for comparison in comparisons]
    pairs.sort(key=lambda row: (row["offset"], titles.index(row["comparison"])))
    return _shares(visit, method.name, math.nan, clean), pairs


def _moved(
    visit: Visit, prediction: Prediction, comparisons: Sequence[Comparison]
) -> Iterator[Moved]:
    """A part whose modality was kept is the clean part: the linearisation is the clean sample's."""
    for m in range(1, len(visit.partners) + 1):
        for comparison in comparisons:
            before = prediction.parts[comparison.target]
            moved = prediction.perturbed[comparison.target][m - 1]
            after = moved if comparison.expected == "change" else before
            yield m, comparison, before if after is None else after, before


def _pair_rows(
    visit: Visit, name: str, moved: Iterable[Moved], metrics: Mapping[str, Metric]
) -> Iterator[dict[str, Any]]:
    for m, comparison, after, before in moved:
        yield {
            "sample_token": visit.sample.token,
            "perturbed_token": visit.partners[m - 1].token,
            "offset": m,
            "variant": name,
            "perturbed": comparison.perturbed_name,
            "target": comparison.target,
            "expected": comparison.expected,
            "comparison": comparison.title,
            **{name: _number(name, metric, after, before) for name, metric in metrics.items()},
        }


def _number(name: str, metric: Metric, after: Tensor, before: Tensor) -> float:
    with user_code(f"metric {name}"):
        return float(metric(after, before))
