"""A NaN is reported as the data's, the weights', or the network's own, by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lmd_cli.assembly.forward import encode_batch, fuse_function
from lmd_cli.decomposition import decompose
from lmd_cli.errors import CheckpointError, ContractError, DataError

GOOD = torch.ones(1, 2, 4, 4)


class Root(nn.Module):
    """The square root, which is NaN below zero."""

    def forward(self, x: Any) -> Any:
        return x.sqrt()


class Net(nn.Module):
    modalities = ("camera",)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Sequential(nn.Conv2d(2, 2, 1), Root()), nn.Conv2d(2, 1, 1)
        for weight in self.parameters():
            nn.init.ones_(weight)

    def encode(self, batch: Any) -> Any:
        return {"camera": self.stem(batch["images"])}

    def fuse(self, features: Any) -> Any:
        return {"out": self.head(features["camera"])}


def test_the_datas() -> None:
    """A NaN that the data holds is the data's error, with the tensor's name."""
    bad = GOOD.clone()
    bad[0, 0, 0, 0] = float("nan")
    with pytest.raises(
        DataError, match="the data of sample tok: tensor images holds NaN"
    ) as caught:
        encode_batch(Net(), {"images": bad}, "tok")
    assert caught.value.token == "tok"
    points = [GOOD, torch.tensor([float("inf")])]
    with pytest.raises(DataError, match="tensor points holds infinite values"):
        encode_batch(Net(), {"images": -2 * GOOD, "points": points}, "tok")


def test_the_weights() -> None:
    network = Net()
    network.stem[0].bias.data[1] = float("nan")
    with pytest.raises(CheckpointError, match=r"the weights: stem\.0\.bias holds NaN, so"):
        encode_batch(network, {"images": GOOD}, "tok")
    network = Net()
    network.head.weight.data[0, 1] = float("inf")
    features, _ = encode_batch(network, {"images": GOOD}, "tok")
    with pytest.raises(CheckpointError, match=r"head\.weight holds infinite values"):
        decompose(fuse_function(network, "out", {}), features)


def test_the_networks_own() -> None:
    network = Net()
    with pytest.raises(ContractError, match=r"camera at sample tok holds NaN.*stem\.1 \(Root\)"):
        encode_batch(network, {"images": -2 * GOOD}, "tok")
    assert not any(module._forward_hooks for module in network.modules())
