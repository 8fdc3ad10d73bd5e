"""One visit of the walk, measured: its rows for ``pairs.csv`` and ``samples.csv``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmd_cli.attribution import ForwardMethod
from lmd_cli.contract import FusionNetwork
from lmd_cli.errors import MethodError
from lmd_cli.evaluation.cells import Cell
from lmd_cli.evaluation.families import Families, Prediction
from lmd_cli.evaluation.metrics import mse, pcc, vehicle_counts
from lmd_cli.evaluation.predict import verify_by_replay
from lmd_cli.evaluation.rivals import Rivals
from lmd_cli.evaluation.schedule import Schedule
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
) -> Rows:
    """Decomposes a sample under every variant, and by every rival method, and compares clean with
    perturbed parts.

    Raises:
        MethodError: a variant's parts are not finite.
    """
    if isinstance(visit.sample, Skipped):
        reason = " ".join(visit.sample.reason.split())
        status = f"skipped: {reason}"
        return Rows([], (visit.position, visit.sample.token, status, 0, "", None, None, None, None))
    by_offset: dict[int, list[tuple[Any, ...]]] = {}
    deviations, residuals = [], []
    counts: tuple[int | None, int | None] = (None, None)
    families = Families(network, visit, output)
    for variant in variants:
        prediction = families.under(variant)
        residuals.append(_finite(prediction.residual, variant, visit.sample.token))
        if visit.position < VERIFIED:
            deviations.append(verify_by_replay(network, visit, variant, output, prediction))
        counts = _counts(visit.sample, prediction.total)
        for m, rows in _compare(visit, variant, cells, prediction).items():
            by_offset.setdefault(m, []).extend(rows)
    if rivals:
        shared = Rivals(network, visit, output, families)
        found = shared.measure_all(rivals, cells)
        counts = _counts(visit.sample, shared.total)
        for method in rivals:
            for m, values in found[method.name].items():
                rows = [_row(visit, m, method.name, cell, values[cell]) for cell in cells]
                by_offset.setdefault(m, []).extend(rows)
    pairs = [row for m in sorted(by_offset) for row in by_offset[m]]
    return Rows(pairs, _sample_row(visit, len(pairs), counts, residuals, deviations))


def _finite(residual: float, variant: str, token: str) -> float:
    if not math.isfinite(residual):
        raise MethodError(
            f"{variant} gives parts of sample {token} that are no finite numbers, though the "
            "prediction is; lmd check names the operation where that begins"
        )
    return residual


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
    visit: Visit, variant: str, cells: Sequence[Cell], prediction: Prediction
) -> dict[int, list[tuple[Any, ...]]]:
    """For each offset, one row for each cell.

    A part whose sensor was kept is the clean part itself (the linearisation is the clean
    sample's), so those cells compare a tensor with itself.
    """
    clean = prediction.parts
    kept = {name: (pcc(part, part), mse(part, part)) for name, part in clean.items()}
    rows: dict[int, list[tuple[Any, ...]]] = {}
    for m, partner in enumerate(visit.partners, start=1):
        if isinstance(partner, Skipped):
            continue
        moved = {
            name: _both(clean[name], maps[m - 1]) for name, maps in prediction.perturbed.items()
        }
        rows[m] = [
            _row(visit, m, variant, cell, (moved if _moves(cell) else kept)[cell.target])
            for cell in cells
        ]
    return rows


def _both(clean: Any, perturbed: Any) -> tuple[float, float]:
    return pcc(perturbed, clean), mse(perturbed, clean)


def _moves(cell: Cell) -> bool:
    return cell.expected == "change"


def _row(
    visit: Visit, m: int, name: str, cell: Cell, values: tuple[float, float]
) -> tuple[Any, ...]:
    """One line of ``pairs.csv``."""
    tokens = (visit.sample.token, visit.partners[m - 1].token)
    return (*tokens, m, name, cell.perturbed_name, cell.target, *values)
