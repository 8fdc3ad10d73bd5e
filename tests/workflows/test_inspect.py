"""Attention is seen from what runs, not from what a network is called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.workflows.inspect import attends

FEATURES = {
    name: torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(seed))
    for seed, name in enumerate(("camera", "radar"))
}


class Mixed(nn.Module):
    """Tokens of two sensors that are joined by some layer."""

    def __init__(self, join: nn.Module):
        super().__init__()
        self.join, self.head = join, nn.Linear(8, 1)

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return self.head(self.join(camera, radar))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return self.layer(camera + radar, radar, camera)[0]


class Scaled(nn.Module):
    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(camera, radar, radar)


class WrittenOut(nn.Module):
    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return (camera @ radar.transpose(1, 2) / 3.0).softmax(-1) @ camera


class Gate(nn.Module):
    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return camera * radar.sigmoid()


class Classes(nn.Module):
    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return (camera + radar).softmax(-1)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return self.norm(self.layer(camera + radar)).relu() * 2.0


@pytest.mark.parametrize("join", [Attention, Scaled, WrittenOut])
def test_attention(join: Any) -> None:
    network = Mixed(join()).eval()
    assert attends(network, FEATURES, network)


@pytest.mark.parametrize("join", [Gate, Classes, Plain])
def test_no_attention(join: Any) -> None:
    network = Mixed(join()).eval()
    assert not attends(network, FEATURES, network)
