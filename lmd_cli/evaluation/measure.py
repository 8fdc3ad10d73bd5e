"""One visit of the walk, measured: its rows for ``pairs.csv`` and ``samples.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmd_cli.assembly.contract import FusionNetwork
from lmd_cli.attribution import ForwardMethod
from lmd_cli.evaluation.baselines import Rivals
from lmd_cli.evaluation.comparisons import Cell
from lmd_cli.evaluation.guard import Exactness
from lmd_cli.evaluation.metrics import vehicle_counts
from lmd_cli.evaluation.numbers import Numbers, RecordedNumbers, as_tensor, read_numbers
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.evaluation.variants import Families
from lmd_cli.evaluation.walk import Encoding, Skipped, Visit

#: The first samples of the walk whose parts are compared with a literal replay.
VERIFIED = 2


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


def measure(
    network: FusionNetwork,
    visit: Visit,
    variants: Sequence[str],
    cells: Sequence[Cell],
    output: str,
    rivals: Sequence[ForwardMethod] = (),
    recorded: RecordedNumbers | None = None,
) -> Rows:
    """Decomposes a sample under every variant, and by every rival method, and compares clean with
    perturbed parts.

    Args:
        network, visit, variants, cells, output, rivals: who explains which output of what.
        recorded: gives the variants' numbers from a CUDA graph.

    Raises:
        RunError: a variant's parts are not exact: they do not sum to the total, are not what the
            linearised network gives, or the total is not the plain network's.
    """
    if isinstance(visit.sample, Skipped):
        reason = " ".join(visit.sample.reason.split())
        status = f"skipped: {reason}"
        return Rows([], (visit.position, visit.sample.token, status, 0, "", None, None, None, None))
    families = Families(network, visit, output)
    exact = Exactness(network, visit, output, families)
    with exact.named(variants):
        return _measured(network, visit, variants, cells, output, rivals, recorded, exact)


def _measured(
    network: FusionNetwork,
    visit: Visit,
    variants: Sequence[str],
    cells: Sequence[Cell],
    output: str,
    rivals: Sequence[ForwardMethod],
    recorded: RecordedNumbers | None,
    exact: Exactness,
) -> Rows:
    assert isinstance(visit.sample, Encoding)
    by_offset: dict[int, list[tuple[Any, ...]]] = {}
    found = _numbers(visit, variants, exact.families, recorded)
    numbers = read_numbers(found, variants, network.modalities, visit)
    counts = _counts(visit.sample, found["total"]) if variants else (None, None)
    residuals = [exact.conserving(name, n, found["total"]) for name, n in numbers.items()]
    for variant, own in numbers.items():
        for m, rows in _compare(visit, variant, cells, own).items():
            by_offset.setdefault(m, []).extend(rows)
    checked = variants if visit.position < VERIFIED else ()
    deviations = [exact.verified(variant) for variant in checked]
    if rivals:
        shared = Rivals(network, visit, output, exact.families)
        measured = shared.measure_all(rivals, cells)
        counts = _counts(visit.sample, shared.total)
        for method in rivals:
            for m, values in measured[method.name].items():
                rows = [_row(visit, m, method.name, cell, values[cell]) for cell in cells]
                by_offset.setdefault(m, []).extend(rows)
    pairs = [row for m in sorted(by_offset) for row in by_offset[m]]
    return Rows(pairs, _sample_row(visit, len(pairs), counts, residuals, deviations))


def _numbers(
    visit: Visit, variants: Sequence[str], families: Families, recorded: RecordedNumbers | None
) -> dict[str, Tensor]:
    """From the graph, if there is one; what it gives of bad features is looked at as it is."""
    found = None if recorded is None else recorded(visit)
    if found is not None and bool(torch.isfinite(found["numbers"][0])):
        return found
    return as_tensor(families, variants)


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


def _compare(
    visit: Visit, variant: str, cells: Sequence[Cell], numbers: Numbers
) -> dict[int, list[tuple[Any, ...]]]:
    """For each offset, one row for each cell."""

    def values(cell: Cell, m: int) -> tuple[float, float]:
        return numbers.moved[cell.target][m] if _moves(cell) else numbers.kept[cell.target]

    return {
        m: [_row(visit, m, variant, cell, values(cell, m)) for cell in cells]
        for m, partner in enumerate(visit.partners, start=1)
        if isinstance(partner, Encoding)
    }


def _moves(cell: Cell) -> bool:
    return cell.expected == "change"


def _row(
    visit: Visit, m: int, name: str, cell: Cell, values: tuple[float, float]
) -> tuple[Any, ...]:
    """One line of ``pairs.csv``."""
    tokens = (visit.sample.token, visit.partners[m - 1].token)
    return (*tokens, m, name, cell.perturbed_name, cell.target, *values)
