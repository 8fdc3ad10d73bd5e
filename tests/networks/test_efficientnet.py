"""EfficientNet against the port whose parameter names checkpoints have, and as SimpleBEV's encoder.

The goldens are what efficientnet-pytorch 0.7.1 gives, without the layers that SimpleBEV's code
deletes, for ``random_weights(network, 3)`` and the images below: the first 6 channels at an eighth
of the image's size, the first 12 at a sixteenth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lmd_cli.config.sizes import SimpleBEVSizes
from lmd_cli.decomposition import decompose
from lmd_cli.errors import ConfigError
from lmd_cli.geometry import Grid
from lmd_cli.networks import SimpleBEV
from lmd_cli.networks.efficientnet import SCALINGS, EfficientNet
from lmd_cli.networks.random_weights import random_weights
from tests.support.reference_inputs import GOLDENS, SMALL, reference_batch

#: Names and shapes of parameters and buffers, counted from the port.
COUNTS = {"effb0": (242, 868_001), "effb4": (478, 3_684_705)}


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, 64, 96, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", SCALINGS)
def test_features_of_the_port(name: str) -> None:
    network = EfficientNet(SCALINGS[name])
    random_weights(network, 3)
    with torch.no_grad():
        shallow, deep = network.eval().double()(images())
    with np.load(GOLDENS / "efficientnet" / f"{name}.npz") as golden:
        assert shallow.shape[1:] == (network.shallow, 8, 12)
        assert deep.shape[1:] == (network.deep, 4, 6)
        assert np.abs(shallow[0, :6].numpy() - golden["shallow"]).max() < 1e-12
        assert np.abs(deep[0, :12].numpy() - golden["deep"]).max() < 1e-12


@pytest.mark.parametrize("name", SCALINGS)
def test_state_of_the_port(name: str) -> None:
    state = EfficientNet(SCALINGS[name]).state_dict()
    assert (len(state), sum(value.numel() for value in state.values())) == COUNTS[name]
    assert next(iter(state)) == "_conv_stem.weight"
    assert "_blocks.0._expand_conv.weight" not in state
    assert {"_blocks.1._se_reduce.bias", "_blocks.10._bn2.running_var"} <= state.keys()


def test_simplebev_with_it_is_decomposed() -> None:
    module = SimpleBEV(grid=SMALL.grid, encoder="effb0", widths=SimpleBEVSizes(latent=6)).eval()
    random_weights(module, 1)
    with torch.no_grad():
        features = module.encode(reference_batch(SMALL))
        plain = module.fuse(features)["segmentation"]
    result = decompose(lambda **given: module.fuse(given), features)["segmentation"]
    assert torch.equal(result.total, plain)
    assert result.residual < 1e-5


@pytest.mark.parametrize("sizes", [{"stem": 8}, {"encoder_blocks": (1, 1, 1)}, {"upsampling": 8}])
def test_widths_of_a_resnet_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"widths.{next(iter(sizes))} .*effb4 has one size"):
        SimpleBEV(grid=Grid((8, 4, 8)), encoder="effb4", widths=SimpleBEVSizes(**sizes))
