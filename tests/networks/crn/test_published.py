"""CRN at the published size against the public code: its maps, and the boxes made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.crn_reference import SHAPES, Golden
from tests.support.crn_stages import TOLERANCE, Stages, check_geometry, with_bottoms

NEAR_TIE = 1e-5  # scores this near may change places with the last digits of the network


@pytest.fixture(scope="module")
def published() -> Stages:
    return Stages("r50")


@torch.no_grad()
def test_the_published_network(published: Stages):
    golden = Golden("r50")
    check_geometry(published, golden)
    differences = {name: golden.difference(name, value) for name, value in published.outputs()}
    assert {k: d for k, d in differences.items() if d > TOLERANCE} == {}


@torch.no_grad()
def test_boxes_of_the_published_network(published: Stages):
    """In the units of its maps: what the network's rounding is there, exponentials magnify."""
    network, maps, golden = published.network, published.maps, Golden("r50").arrays
    actual = with_bottoms(*network.decode(maps))
    (turned,) = network.decode({n: maps[n.replace(".vel", ".rot")] for n in maps})
    rot = turned.boxes[:, 7:]
    classes = [name for task in SHAPES["r50"].tasks for name in task]
    scores, wanted = golden["decode.b0.scores"], torch.from_numpy(golden["decode.b0.boxes"])
    assert [classes.index(name) for name in actual.names] == golden["decode.b0.labels"].tolist()
    np.testing.assert_allclose(actual.scores, scores, rtol=0, atol=NEAR_TIE)
    place = torch.cdist(wanted, actual.boxes).argmin(dim=1)
    assert sorted(place.tolist()) == list(range(len(scores)))
    assert np.abs(scores[place] - scores).max() < NEAR_TIE
    assert (place == torch.arange(len(scores))).float().mean() > 0.99
    boxes, sine_cosine = actual.boxes[place], rot[place]
    np.testing.assert_allclose(
        in_units_of_maps(boxes), in_units_of_maps(wanted), rtol=0, atol=TOLERANCE
    )
    turn = (boxes[:, 6] - wanted[:, 6]).abs() * sine_cosine.norm(dim=1)
    assert turn.max() < TOLERANCE


def in_units_of_maps(boxes: Tensor) -> Tensor:
    """Place and velocity as they are, heights of the middle, sizes in logarithms."""
    height = boxes[:, 2] + boxes[:, 5] / 2
    values = [boxes[:, :2], height[:, None], boxes[:, 3:6].log(), boxes[:, 7:]]
    return torch.cat(values, dim=1)
