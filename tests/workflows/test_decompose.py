"""The files of one decomposed sample."""

from __future__ import annotations

import torch

from lmd_cli.decomposition import decompose
from lmd_cli.workflows.decompose import layers_csv


def test_layers_csv_shows_the_interaction_behind_a_product() -> None:
    inputs = {"camera": torch.ones(1, 2), "radar": torch.full((1, 2), 2.0)}
    result = decompose(lambda camera, radar: (camera + 1.0) * radar, inputs, audit=True)
    header, first, last = layers_csv(result.operations, ["camera", "radar", "bias"]).splitlines()
    assert header.endswith(b"share_camera,share_radar,share_bias,share_interaction")
    assert first.endswith(b",0.5,0.0,0.5,0.0")
    assert last.endswith(b",0.0,0.5,0.0,0.5")
