"""From the pairs to the tables: ``metrics.csv`` and the paper's layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmd_cli.errors import ResultsError
from lmd_cli.evaluation.comparisons import Comparison
from lmd_cli.results.digits import figure_text, largest
from lmd_cli.results.pair_rows import PAIR_FIELDS
from lmd_cli.runtime.files import open_plain, read_text

METRIC_FIELDS = (
    "variant",
    "perturbed",
    "target",
    "expected",
    "pcc_mean",
    "pcc_std",
    "mse_mean",
    "mse_std",
    "pairs",
    "undefined",
)


#: Of what is no text in ``pairs.csv``.
_KINDS = {"offset": np.int64, "pcc": np.float64, "mse": np.float64}


def read_pairs(path: Path) -> pd.DataFrame:
    """``pairs.csv`` with float64 values exactly as written (an empty value is NaN).

    Raises:
        ResultsError: it is damaged.
        ForeignFileError: it is a link, a pipe or a device.
    """
    kinds = {name: _KINDS.get(name, str) for name in PAIR_FIELDS}
    exactly: Any = {"float_precision": "round_trip", "keep_default_na": False, "dtype": kinds}
    empty = {name: [""] for name in ("pcc", "mse")}
    try:
        with open(path, "rb", opener=open_plain) as file:
            pairs = pd.read_csv(file, usecols=list(PAIR_FIELDS), na_values=empty, **exactly)
    except (ValueError, OverflowError) as error:  # also pandas' own
        reason = str(error).strip().splitlines()[0]
        raise ResultsError(
            f"{path} cannot be read ({reason}); remove it, and lmd evaluate measures its rows again"
        ) from None
    for name in ("sample_token", "perturbed_token"):
        pairs[name] = pairs[name].map(read_text)
    return pairs


def summarise(
    pairs: pd.DataFrame, variants: Sequence[str], comparisons: Sequence[Comparison]
) -> pd.DataFrame:
    """Mean and standard deviation (ddof 0) over all pairs, for each variant and comparison.

    Pairs whose PCC does not exist (a constant map) are counted in ``undefined`` and left out of
    the PCC's mean. Sums are in float64, in the order of the rows.

    Returns:
        The columns :data:`METRIC_FIELDS`.
    """
    rows = [_summary(pairs, variant, c) for variant in variants for c in comparisons]
    return pd.DataFrame(rows, columns=list(METRIC_FIELDS))


def _summary(pairs: pd.DataFrame, variant: str, comparison: Comparison) -> tuple[Any, ...]:
    chosen = pairs[
        (pairs.variant == variant)
        & (pairs.perturbed == comparison.perturbed_name)
        & (pairs.target == comparison.target)
    ]
    correlation = chosen.pcc.to_numpy(dtype=np.float64)
    defined = correlation[~np.isnan(correlation)]
    return (
        variant,
        comparison.perturbed_name,
        comparison.target,
        comparison.expected,
        *mean_and_std(defined),
        *mean_and_std(chosen.mse.to_numpy(dtype=np.float64)),
        len(chosen),
        len(correlation) - len(defined),
    )


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation with ddof 0; NaN for no values."""
    if values.size == 0:
        return float("nan"), float("nan")
    return float(values.mean()), float(values.std())


def paper_table(metrics: pd.DataFrame, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """The layout of the paper's tables: ``0.05 ± 0.02`` under ``PCC R_p/R`` and so on.

    Args:
        metrics: what :func:`summarise` returns.
        comparisons: the columns, for PCC and then for MSE.

    Returns:
        One row of strings for each variant; an undefined value is empty.
    """
    rows = []
    chosen = {(c.perturbed_name, c.target) for c in comparisons}
    pairs = zip(metrics.perturbed, metrics.target, metrics.mse_mean, strict=True)
    scale = largest(mean for *which, mean in pairs if tuple(which) in chosen)
    for variant, group in metrics.groupby("variant", sort=False):
        row = {"variant": str(variant)}
        for metric, size in (("pcc", np.inf), ("mse", scale)):
            for comparison in comparisons:
                row[f"{metric.upper()} {comparison.title}"] = _entry(
                    group, comparison, metric, size
                )
        rows.append(row)
    return pd.DataFrame(rows)


def _entry(group: pd.DataFrame, comparison: Comparison, metric: str, scale: float) -> str:
    chosen = group[
        (group.perturbed == comparison.perturbed_name) & (group.target == comparison.target)
    ]
    if chosen.empty:  # it was not asked for
        return ""
    mean, deviation = mean_and_deviation(chosen.iloc[0], metric)
    return "" if np.isnan(mean) else figure_text(mean, deviation, scale=scale)


def mean_and_deviation(row: Mapping[Any, Any] | pd.Series[Any], metric: str) -> tuple[float, float]:
    """Of ``pcc`` or ``mse`` in a row of ``metrics.csv``; one value has no deviation: NaN."""
    values = row["pairs"] - (row["undefined"] if metric == "pcc" else 0)
    return float(row[f"{metric}_mean"]), float(row[f"{metric}_std"]) if values > 1 else math.nan
