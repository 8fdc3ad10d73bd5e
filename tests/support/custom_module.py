"""A small network and data set, as somebody's own module, and how tests call them."""

from __future__ import annotations

import pytest
import torch

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.forward import encode_batch, fuse_function
from lmd_cli.config.schema import RunConfig
from lmd_cli.data import collate
from lmd_cli.errors import ContractError

CPU = torch.device("cpu")


MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    modalities = ("a", "b")

    def __init__(self, width=4, features=None, outputs=None):
        super().__init__()
        self.mix = nn.Linear(width, 3)
        self.kept = nn.Parameter(torch.rand(2))
        self.register_buffer("order", torch.tensor([2, 0, 1]))
        self.features, self.outputs = features, outputs

    def encode(self, batch):
        return self.features or {"b": batch["b"], "a": batch["a"]}

    def fuse(self, features):
        if self.outputs is not None:
            return self.outputs
        total = torch.relu(self.mix(features["a"] + features["b"]))
        return {"risk": total[:, self.order], "sum": total.sum(1, keepdim=True)}


class Data:
    def __init__(self, n=3, item=None):
        self.n, self.item = n, item

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if self.item == "raise":
            raise KeyError(f"no file {i}")
        if self.item is not None:
            return self.item
        return {"a": torch.full((4,), float(i + 1)), "b": torch.ones(4)}


class NoFuse(nn.Module):
    modalities = ("a", "b")

    def encode(self, batch):
        return batch


def fails(reason="never"):
    raise RuntimeError(reason)


def number():
    return 3


def other_names():
    net = Net()
    net.modalities = ("a", "c")
    return net


constant = 5
"""


def run_once(config: RunConfig) -> None:
    network = build_network(config, CPU).network
    dataset = build_dataset(config)
    features, constants = encode_batch(network, collate([dataset[0]]), dataset.tokens[0])
    fuse_function(network, config.model.output, constants)(**features)


def refused(config: RunConfig, *phrases: str, kind: type[Exception] = ContractError) -> str:
    """The message of making everything and encoding the first sample."""
    with pytest.raises(kind) as caught:
        run_once(config)
    message = str(caught.value)
    for phrase in phrases:
        assert phrase in message
    return message
