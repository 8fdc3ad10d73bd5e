"""SimpleBEV's instances: what its own targets say is what comes out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lmd_cli.assembly.build import build_dataset
from lmd_cli.config.loading import load_config
from lmd_cli.data.simplebev.truth import footprint_mask
from lmd_cli.geometry import Grid
from lmd_cli.networks.simplebev.instances import HEIGHT, instances

GRID = Grid((20, 4, 40), (-20.0, 20.0, -5.0, 5.0, -10.0, 10.0), (0.0, 0.0, 0.0))


def maps(*rectangles: tuple[range, range]) -> dict[str, torch.Tensor]:
    """Logits 2 on the rectangles (the second 3, ...), their centres, and upstream's offsets."""
    segmentation = torch.full((1, 1, 20, 40), -5.0)
    centre, offset = torch.zeros(1, 1, 20, 40), torch.zeros(1, 2, 20, 40)
    for number, (rows, columns) in enumerate(rectangles):
        z, x = rows[len(rows) // 2], columns[len(columns) // 2]
        centre[0, 0, z, x] = 1.0
        for row in rows:
            for column in columns:
                segmentation[0, 0, row, column] = 2.0 + number
                offset[0, :, row, column] = 2 * torch.tensor([column - x, row - z])
    named = ("segmentation", "instance_center", "instance_offset")
    return dict(zip(named, (segmentation, centre, offset), strict=True))


def test_two_vehicles_that_touch_are_two_by_their_offsets():
    touching = maps((range(2, 8), range(4, 7)), (range(8, 14), range(4, 7)))
    (one,) = instances(touching, GRID, "offsets")
    assert one.names == ("vehicle", "vehicle")
    assert one.scores.tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-2))])
    assert sorted(set(one.places[0].rows.tolist())) == list(range(8, 14))
    (together,) = instances(touching, GRID, "components")
    assert len(together.names) == 1


def test_a_box_lies_around_its_cells():
    (one,) = instances(maps((range(12, 18), range(30, 33))), GRID, "offsets")
    x, y, z, length, width, height, yaw, vx, vy = one.boxes[0].tolist()
    # rows 12 to 17 are 2 to 8 m ahead, columns 30 to 32 are 10 to 13 m to the right
    assert (x, y, z) == pytest.approx((5.0, -11.5, HEIGHT / 2))
    assert (length, width, height) == pytest.approx((6.0, 3.0, HEIGHT))
    assert abs(math.sin(yaw)) == pytest.approx(0, abs=1e-6)
    assert (vx, vy) == (0, 0)


def test_without_a_centre_or_a_cell_there_is_nothing():
    for how in ("offsets", "components"):
        (none,) = instances(maps(), GRID, how)
        assert none.boxes.shape == (0, 9)
        assert none.places == ()
    silent = maps((range(2, 8), range(4, 7))) | {"instance_center": torch.zeros(1, 1, 20, 40)}
    (none,) = instances(silent, GRID, "offsets")
    assert none.names == ()


def test_the_targets_of_a_sample_give_its_vehicles(tiny_config):
    """Each vehicle's own cells, told apart by the offsets that SimpleBEV is trained on."""
    dataset = build_dataset(load_config(tiny_config, ["model.grid=[200, 8, 200]"]))
    sample = dataset[0].tensors
    outputs = {
        "segmentation": (sample["segmentation"] - 0.5)[None],
        "instance_center": sample["center"][None],
        "instance_offset": sample["offset"][None],
    }
    (made,) = instances(outputs, dataset.grid, "offsets")
    masks = [footprint_mask(box, dataset.grid) for box in dataset.boxes(0)]
    ours = np.zeros((len(made.places), 200, 200), dtype=bool)
    for mask, place in zip(ours, made.places, strict=True):
        mask[place.rows, place.columns] = True
    whole = [m for m in masks if m.sum() > 20]
    same = [max(float((m & o).sum() / (m | o).sum()) for o in ours) for m in whole]
    assert len(whole) > 5
    assert np.mean([overlap > 0.9 for overlap in same]) > 0.9
