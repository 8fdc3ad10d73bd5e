"""CRN's boxes: against the public code, against boxes that are known, and against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lmd_cli.errors import ConfigError
from lmd_cli.networks import CRN
from lmd_cli.networks.crn.decoding import (
    CANDIDATES,
    KEPT,
    SQUARED_RADIUS,
    best,
    circle_nms,
    decode,
)
from lmd_cli.networks.crn.head import BRANCHES, HEATMAP
from tests.support.crn_reference import CASES, SHAPES, TINY, Golden, fill_reference, reference_batch
from tests.support.crn_stages import TOLERANCE, with_bottoms


@torch.no_grad()
def test_boxes_are_the_published_ones_in_their_order():
    golden, network = Golden("tiny_s1").arrays, fill_reference(CRN(CASES["tiny_s1"].sizes))
    maps = network(reference_batch("tiny_s1"), network.detection_outputs)
    actual = with_bottoms(*network.decode(maps))
    classes = [name for task in TINY.tasks for name in task]
    assert [classes.index(name) for name in actual.names] == golden["decode.b0.labels"].tolist()
    np.testing.assert_allclose(actual.scores, golden["decode.b0.scores"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(actual.boxes, golden["decode.b0.boxes"], rtol=0, atol=TOLERANCE)


def empty_maps(batch: int = 1) -> dict[str, Tensor]:
    """Maps of :data:`TINY` without a box."""
    maps = {}
    for k, task in enumerate(TINY.tasks):
        for branch, channels in {**BRANCHES, HEATMAP: len(task)}.items():
            value = -20.0 if branch == HEATMAP else 0.0
            maps[f"task{k}.{branch}"] = torch.full((batch, channels, 32, 32), value)
    return maps


def put(
    maps: dict[str, Tensor], task: int, label: int, cell: tuple[int, int], score: float, **values
) -> None:
    """One box at (row, column) of the last sample."""
    row, column = cell
    maps[f"task{task}.{HEATMAP}"][-1, label, row, column] = math.log(score / (1 - score))
    for branch, numbers in values.items():
        maps[f"task{task}.{branch}"][-1, :, row, column] = torch.tensor(numbers)


def test_boxes_that_are_known_are_found_again():
    """Two boxes on maps made by hand, in the second sample; the first has none."""
    maps = empty_maps(batch=2)
    size, yaw = (4.5, 1.9, 1.6), 2.0
    put(
        *(maps, 0, 0, (3, 20), 0.7),
        reg=(0.25, 0.5),
        height=(-0.4,),
        dim=[math.log(value) for value in size],
        rot=(math.sin(yaw), math.cos(yaw)),
        vel=(3.0, -1.0),
    )
    put(maps, 1, 1, (31, 0), 0.4)
    none, actual = decode(maps, TINY)
    assert none.boxes.shape == (0, 9)
    assert none.names == ()
    assert actual.names == ("car", "bus")
    assert actual.scores.tolist() == pytest.approx([0.7, 0.4])
    step = 2 * TINY.extent / TINY.cells
    x, y = 20.25 * step - TINY.extent, 3.5 * step - TINY.extent
    assert actual.boxes[0].tolist() == pytest.approx([x, y, -0.4, *size, yaw, 3, -1], abs=1e-4)
    corner = [-TINY.extent, 31 * step - TINY.extent, 0, 1, 1, 1, 0, 0, 0]
    assert actual.boxes[1].tolist() == pytest.approx(corner, abs=1e-4)


def test_what_is_too_weak_or_too_far_is_no_box():
    maps = empty_maps()
    put(maps, 0, 0, (2, 2), 0.0099)
    put(maps, 0, 0, (8, 2), 0.0101)
    put(maps, 0, 0, (8, 8), 0.9, reg=(15.0, 0.0), height=(0.0,))  # 15 cells on: on the map
    put(maps, 0, 0, (8, 31), 0.8, reg=(5.0, 0.0))  # 16 m beyond the last cell
    put(maps, 0, 0, (20, 20), 0.7, height=(10.5,))
    (actual,) = decode(maps, TINY)
    assert actual.scores.tolist() == pytest.approx([0.9, 0.0101], abs=1e-5)


def test_classes_of_one_task_suppress_each_other_and_tasks_do_not():
    maps = empty_maps()
    put(maps, 1, 0, (10, 10), 0.6)
    put(maps, 1, 1, (10, 10), 0.8)
    put(maps, 0, 0, (10, 10), 0.5)
    (actual,) = decode(maps, TINY)
    assert actual.names == ("car", "bus")


def plain_nms(xy: list[list[float]], squared_radius: float, most: int) -> list[int]:
    """Circle suppression by its definition."""
    kept: list[int] = []
    for i, (x, y) in enumerate(xy):
        apart = all((x - xy[j][0]) ** 2 + (y - xy[j][1]) ** 2 > squared_radius for j in kept)
        if apart and len(kept) < most:
            kept.append(i)
    return kept


@pytest.mark.parametrize("squared_radius", [0.175, 4.0, 400.0])
@pytest.mark.parametrize("most", [1, 7, 500])
def test_circle_suppression_is_the_plain_loop(squared_radius: float, most: int):
    xy = (torch.rand(300, 2) * 40).double()
    xy[50] = xy[20]
    assert circle_nms(xy, squared_radius, most).tolist() == plain_nms(
        xy.tolist(), squared_radius, most
    )


def test_boxes_exactly_at_the_radius_are_one():
    xy = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [4.0, 2.5]])
    assert circle_nms(xy, 4.0, KEPT).tolist() == [0, 2, 3]
    assert circle_nms(xy[:0], 4.0, KEPT).tolist() == []


def test_the_best_are_in_order_and_ties_keep_theirs():
    scores = torch.tensor([0.5, 0.9, 0.5, 0.1, 0.5, 0.9])
    assert best(scores, 4).tolist() == [1, 5, 0, 2]
    assert best(scores, 100).tolist() == [1, 5, 0, 2, 4, 3]


def test_at_most_so_many_candidates_and_boxes_of_a_task():
    sizes = replace(TINY, cells=64, extent=512.0)  # cells of 16 m: nothing is suppressed
    maps = {n: torch.zeros(1, x.shape[1], 64, 64) for n, x in empty_maps().items()}
    (actual,) = decode(maps, sizes)
    assert actual.names.count("car") == KEPT < CANDIDATES
    assert len(actual.names) == 2 * KEPT


def test_every_published_class_has_a_radius():
    published = [SQUARED_RADIUS[task[0]] for task in SHAPES["r50"].tasks]
    assert published == [4.0, 12.0, 10.0, 1.0, 0.85, 0.175]
    assert set(SQUARED_RADIUS) == {name for task in SHAPES["r50"].tasks for name in task}


def test_a_class_without_a_radius_is_refused():
    sizes = replace(TINY, tasks=(("tram",), ("truck", "bus")))
    with pytest.raises(ConfigError, match="'tram', for which no distance between two boxes"):
        decode(empty_maps(), sizes)
