"""Features after a change of one sensor's data: what is not encoded again is what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.changed import encode_changed
from lmd_cli.assembly.forward import encode_batch, fuse_function
from lmd_cli.config.loading import load_config
from lmd_cli.data import RemovalSettings, collate
from tests.support.tiny_settings import crn_config

CASES = [("tiny", ""), ("crn", "model.boundary=product"), ("crn", "model.boundary=fuser")]


@pytest.mark.parametrize(("which", "setting"), CASES)
@pytest.mark.parametrize("modality", ["camera", "radar"])
def test_one_encoding_gives_the_whole_networks_output(
    tiny_config: Path, tiny_root: Path, tmp_path: Path, which: str, setting: str, modality: str
) -> None:
    path = tiny_config if which == "tiny" else crn_config(tmp_path, tiny_root)
    config = load_config(path, [setting] if setting else [])
    dataset, network = build_dataset(config), build_network(config, torch.device("cpu")).network
    clean: Any = dataset[1]
    tokens = [box.token for box in dataset.boxes(1)][:3]  # type: ignore[union-attr]
    samples = [
        dataset.without(clean, 1, token, modality, RemovalSettings(2.0)).sample  # type: ignore
        for token in tokens
    ]
    features, _ = encode_batch(network, collate([clean]), "s")
    encoded, constants = encode_changed(network, collate(samples), modality, features, "s")
    with torch.no_grad():
        outputs = fuse_function(network, config.model.output, constants)(**encoded)
    for i, sample in enumerate(samples):
        wanted, own = encode_batch(network, collate([sample]), "s")
        for name in network.modalities:
            pairs = zip(*map(pytree.tree_leaves, (encoded[name], wanted[name])), strict=True)
            assert all(torch.allclose(a[i : i + 1], b, atol=1e-5) for a, b in pairs)
        with torch.no_grad():
            output = fuse_function(network, config.model.output, own)(**wanted)
        torch.testing.assert_close(outputs[i : i + 1], output, atol=1e-4, rtol=1e-4)
