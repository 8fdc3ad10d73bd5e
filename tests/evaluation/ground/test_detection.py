"""Vehicles on the output maps of both networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from lmd_cli.config.loading import load_config
from lmd_cli.data import KeyframeSamples
from lmd_cli.data.crn.truth import EgoBox
from lmd_cli.errors import MethodError
from lmd_cli.evaluation.ground.detection import Criterion, criterion_of
from lmd_cli.evaluation.ground.footprints import (
    Footprint,
    FootprintMeans,
    detected,
    footprints,
    require_vehicle_logits,
)
from lmd_cli.evaluation.ground.removal import false_counts


def square(row: int, column: int, size: int = 2) -> Footprint:
    mask = np.zeros((8, 9), dtype=bool)
    mask[row : row + size, column : column + size] = True
    return Footprint(f"{row} {column}", mask)


def test_targets_are_means_over_footprints_and_linear() -> None:
    maps = torch.randn(3, 1, 8, 9, generator=torch.Generator().manual_seed(0)).double()
    vehicles = [square(1, 2), square(2, 3, 4)]
    target = FootprintMeans.over(vehicles, maps)
    actual = target(maps)
    for b in range(3):
        for n, vehicle in enumerate(vehicles):
            assert actual[b, n] == pytest.approx(maps[b, 0].numpy()[vehicle.mask].mean())
    torch.testing.assert_close(target(2 * maps - maps.flip(0)), 2 * actual - actual.flip(0))
    assert FootprintMeans.over([], maps)(maps).shape == (3, 0)


def test_detection_by_the_mean_logit_or_by_the_peak() -> None:
    vehicle, logits = square(1, 2), torch.full((8, 9), 9.0)
    logits[1:3, 2:4] = torch.tensor([[0.4, 0.4], [-0.1, -0.1]])
    assert detected(logits, vehicle, criterion_of("segmentation"))
    logits[1:3, 2:4] = torch.tensor([[3.0, -9.0], [-9.0, -9.0]])
    assert not detected(logits, vehicle, criterion_of("segmentation"))
    assert detected(logits, vehicle, criterion_of("heatmap.car"))
    logits[1:3, 2:4] = -1.0  # probability 0.27
    assert not detected(logits, vehicle, criterion_of("heatmap.car"))
    assert detected(logits, vehicle, criterion_of("heatmap.car", 0.26))
    assert detected(logits, vehicle, criterion_of("segmentation", 0.26))
    assert criterion_of("segmentation", 0.26).words == "mean logit above -1.05"


CAR = EgoBox("a", "vehicle.car", "car", 4, (10.0, 5.0, 0.0), (4.0, 2.0, 1.5), 0.0, (0.0, 0.0), 1, 1)


@dataclass
class Boxes(KeyframeSamples):
    """Nothing but boxes on CRN's map."""

    of: list[EgoBox]
    extent: float = 51.2
    cells: int = 128

    def boxes(self, index: int) -> list[EgoBox]:
        return self.of


def test_crns_map_looks_for_one_class() -> None:
    truck = replace(CAR, token="b", name="truck", category="vehicle.truck")
    hidden, far = (
        replace(CAR, token="c", visibility=1),
        replace(CAR, token="d", center=(90.0, 0, 0)),
    )
    dataset: Any = Boxes([CAR, truck, hidden, far])
    actual = footprints(dataset, 0, "heatmap.car")
    assert [f.token for f in actual] == ["a"]
    rows, columns = np.nonzero(actual[0].mask)  # y to the left, x forward
    assert (rows.min() + 0.5) * 0.8 - 51.2 == pytest.approx(5.0 - 0.6, abs=0.5)
    assert (columns.mean() + 0.5) * 0.8 - 51.2 == pytest.approx(10.0, abs=0.41)
    assert [f.token for f in footprints(dataset, 0, "heatmap.truck")] == ["b"]


def test_outputs_without_vehicle_logits_are_refused() -> None:
    require_vehicle_logits(load_config("crn.yaml", []))
    require_vehicle_logits(load_config("demo.yaml", []))
    for output in ("probability.car", "task0.heatmap"):
        config = load_config("crn.yaml", [f"model.output={output}"])
        with pytest.raises(MethodError, match=r"scores need the vehicles' logits \(heatmap\.CLASS"):
            require_vehicle_logits(config)


def test_a_new_false_alarm_shares_no_cell_with_one_that_was_there():
    before, after = -np.ones((2, 8, 8))
    before[0:2, 0:2] = 1  # a false alarm, which moves
    before[6:8, 6:8] = 1  # a detected vehicle
    after[1:3, 1:3] = 1
    after[0:2, 5:7] = 1  # appears
    after[4:6, 4:6] = 1  # the vehicle's detection slips off it
    after[7, 0] = 1  # too small
    vehicle = np.zeros((8, 8), dtype=bool)
    vehicle[7, 7] = True
    assert false_counts(before, before, [vehicle], Criterion()) == (0, 1)
    assert false_counts(before, after, [vehicle], Criterion()) == (2, 3)
    assert false_counts(before, after, [vehicle], Criterion(peak=True)) == (3, 4)
    assert false_counts(after, -np.ones((8, 8)), [vehicle], Criterion()) == (0, 0)
