"""SimpleBEV against the public code: the same state, and the same numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from lmd_cli.networks import OUTPUTS, SimpleBEV
from tests.support.reference_inputs import (
    FULL,
    GOLDENS,
    SMALL,
    Size,
    fill_reference,
    reference_batch,
)

FOLDER = GOLDENS / "simplebev"
SENSOR = {"metaradar": "radar", "lidar": "lidar"}
#: Every n-th row and column of these arrays is stored.
STRIDES = {
    "small": {"feat": 2, "raw_feat": 2, "bev": 2, "fusion_conv": 2, "cam_feat": 4},
    "full": {
        "instance_center": 2,
        "instance_offset": 4,
        "cam_feat": 8,
        "feat": 20,
        "raw_feat": 20,
        "bev": 20,
        "fusion_conv": 20,
    },
}
MAPS = (*OUTPUTS, "fusion_conv", "cam_feat")


@dataclass(frozen=True)
class Case:
    """One golden file."""

    encoder: str
    size_name: str
    mode: str

    @property
    def size(self) -> Size:
        return SMALL if self.size_name == "small" else FULL

    def golden(self) -> dict[str, np.ndarray]:
        name = f"simplebev_{self.encoder}_{self.size_name}_{self.mode}.npz"
        with np.load(FOLDER / name) as file:
            return dict(file)

    def network(self) -> SimpleBEV:
        modalities = ("camera", SENSOR[self.mode])
        return SimpleBEV(modalities, grid=self.size.grid, encoder=self.encoder)

    def compute(self, dtype: torch.dtype = torch.float32) -> dict[str, np.ndarray]:
        """Ours, thinned and named as the golden is."""
        network = fill_reference(self.network()).to(dtype)
        batch = to_dtype(reference_batch(self.size), dtype)
        with torch.no_grad():
            features = network.encode(batch)
            fused = network.fusion_layer(features)
            maps = network.tail(fused, OUTPUTS)
            maps |= {"fusion_conv": fused, "cam_feat": network.image_features(batch["images"])[0]}
        strides = STRIDES[self.size_name]
        ours = {
            name: value[..., :: strides.get(name, 1), :: strides.get(name, 1)].numpy()
            for name, value in maps.items()
        }
        fusion_in = torch.cat(list(features.values()), dim=1).double()
        return ours | {
            "fusion_in_sum": fusion_in.sum().numpy(),
            "fusion_in_abs": fusion_in.abs().sum().numpy(),
            "occ_count": features[SENSOR[self.mode]].count_nonzero().numpy(),
        }


def to_dtype(batch: dict[str, Tensor | list[Tensor]], dtype: torch.dtype) -> dict:
    return {
        name: [v.to(dtype) for v in value] if isinstance(value, list) else value.to(dtype)
        for name, value in batch.items()
    }


CASES = {
    "res50-small-metaradar": Case("res50", "small", "metaradar"),
    "res50-small-lidar": Case("res50", "small", "lidar"),
    "res101-full-metaradar": Case("res101", "full", "metaradar"),
}


@pytest.fixture(scope="module", params=CASES)
def arrays(request: pytest.FixtureRequest) -> tuple[dict, dict]:
    """Ours and theirs for one case, float32."""
    case = CASES[request.param]
    return case.compute(), case.golden()


def test_segmentation_equals_the_public_code_to_1e4(arrays: tuple[dict, dict]) -> None:
    ours, theirs = arrays
    np.testing.assert_allclose(ours["segmentation"], theirs["segmentation"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MAPS)
def test_every_stored_map_is_equal(arrays: tuple[dict, dict], name: str) -> None:
    ours, theirs = arrays[0][name], arrays[1][name]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-5 * np.abs(theirs).max())


def test_fusion_input_is_equal(arrays: tuple[dict, dict]) -> None:
    ours, theirs = arrays
    assert ours["occ_count"] == theirs["occ_count"]
    for name in ("fusion_in_sum", "fusion_in_abs"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-6 * theirs["fusion_in_abs"])


def test_in_float64_only_the_goldens_own_rounding_is_left() -> None:
    case = CASES["res50-small-metaradar"]
    ours, theirs = case.compute(torch.float64), case.golden()
    for name in MAPS:
        scale = np.abs(theirs[name]).max()
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("encoder", "mode"), [("res50", "metaradar"), ("res101", "metaradar"), ("res101", "lidar")]
)
def test_state_has_the_published_keys_in_order(encoder: str, mode: str) -> None:
    published = json.loads((FOLDER / f"keys_{encoder}_{mode}.json").read_text())
    state = Case(encoder, "full", mode).network().state_dict()
    ours = [(n, list(v.shape), str(v.dtype).removeprefix("torch.")) for n, v in state.items()]
    assert ours == [(key["name"], key["shape"], key["dtype"]) for key in published]


def test_published_network_has_the_published_number_of_parameters() -> None:
    network = CASES["res101-full-metaradar"].network()
    assert sum(p.numel() for p in network.parameters()) == 42_196_167
