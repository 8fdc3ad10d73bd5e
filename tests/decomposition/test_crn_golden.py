"""LMD on CRN against an independent float64 computation of the paper's rules, and exactness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmd_cli.decomposition import Decomposition, decompose
from lmd_cli.decomposition.linearised.replay import replay, replay_deviation
from lmd_cli.networks import CRN
from tests.support.crn_reference import SHAPES, fill_reference, reference_batch
from tests.support.reference_inputs import GOLDENS

STORED = np.load(GOLDENS / "lmd" / "lmd_crn_tiny_s1.npz")
#: ``BN-LN-SOFTMAX-BILINEAR``, as the arrays are named.
SETTINGS = sorted({key.split("/")[0] for key in STORED.files if not key.startswith("total")})
OUTPUTS = ("task0.heatmap", "task1.heatmap")
#: Relative L2 distance of an array. In float32 a ReLU whose input is 1e-9 may flip, which moves
#: parts by 1e-2 while the total moves by 1e-6.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-2}


class Encoded:
    """The reduced network and its inputs' features in one precision."""

    def __init__(self, dtype: torch.dtype, boundary: str = "product"):
        network = CRN(SHAPES["tiny"], boundary=boundary)  # type: ignore[arg-type]
        self.network = fill_reference(network).to(dtype)
        batch = {name: x.to(dtype) for name, x in reference_batch("tiny_s1").items()}
        with torch.no_grad():
            self.features = self.network.encode(batch)
            self.constants = self.network.constants(batch)

    def fuse(self, **features: Any) -> dict[str, Tensor]:
        return self.network.fuse(features, OUTPUTS, **self.constants)

    def decompose(self, variant: str, **options: Any) -> Decomposition:
        return decompose(self.fuse, self.features, variant, root=self.network, **options)


@pytest.fixture(scope="module")
def double() -> Encoded:
    return Encoded(torch.float64)


@pytest.fixture(scope="module")
def single() -> Encoded:
    return Encoded(torch.float32)


def part(result: Any, name: str) -> Tensor:
    own = {"bias": result.bias, "interaction": result.interaction}
    return own[name] if name in own else result.parts[name]


def distances(result: Decomposition, setting: str) -> dict[str, float]:
    """Relative L2 distance of every stored array of a setting."""
    actual = {}
    for key in (k for k in STORED.files if k.split("/")[0] == setting):
        _, task, name = key.split("/")
        wanted = torch.from_numpy(STORED[key]).double()
        ours = part(result[f"{task}.heatmap"], name).double()
        actual[key] = float((ours - wanted).norm() / wanted.norm())
    return actual


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_parts_are_those_of_the_independent_computation(request, dtype, setting):
    encoded = request.getfixturevalue("double" if dtype == torch.float64 else "single")
    variant, _, bilinear = setting.rpartition("-")
    result = encoded.decompose(variant, bilinear=bilinear)
    apart = distances(result, setting)
    assert len(apart) >= 6
    assert {k: d for k, d in apart.items() if d > TOLERANCE[dtype]} == {}


def test_totals_are_the_stored_ones(double: Encoded):
    result = double.decompose("identity-ratio")
    for task in ("task0", "task1"):
        wanted = torch.from_numpy(STORED[f"total/{task}"]).double()
        assert (result[f"{task}.heatmap"].total - wanted).abs().max() < 1e-6


@pytest.mark.parametrize("softmax", ["frozen", "taylor"])
def test_conservation_at_every_operation(double: Encoded, softmax: str):
    result = double.decompose(f"identity-ratio-identity-{softmax}", audit=True)
    assert len(result.operations) > 200
    assert max(record.residual for record in result.operations) < 1e-12


def test_the_secant_conserves_relative_to_its_parts(double: Encoded):
    """Its parts are so much larger than the total that rounding is theirs."""
    result = double.decompose("identity-ratio-secant", audit=True)
    assert max(record.parts_residual for record in result.operations) < 1e-12


@pytest.mark.parametrize("variant", ["identity-ratio", "identity-identity-identity-taylor"])
def test_parts_are_a_literal_replay(double: Encoded, variant: str):
    result = double.decompose(variant, keep_maps=True, bilinear="interaction")
    assert replay_deviation(replay(result, double.features), result) < 1e-12


def test_modalities_do_not_depend_on_where_the_interaction_is_reported(double: Encoded):
    merged, apart = (
        double.decompose("identity-ratio", bilinear=b) for b in ("bias", "interaction")
    )
    for name in OUTPUTS:
        for modality in ("camera", "radar"):
            assert torch.equal(merged[name].parts[modality], apart[name].parts[modality])
        together = apart[name].bias + apart[name].interaction
        assert torch.allclose(merged[name].bias, together, atol=1e-12)


def test_sampling_places_and_weights_are_listed_as_constants(double: Encoded):
    covered = double.decompose("identity-ratio").coverage
    held = {what for (_, what), rule in covered.items() if rule.kind == "constant"}
    assert any("sampling locations" in what for what in held)
    assert any("attention weights" in what for what in held)


def test_without_radar_occupancy_the_camera_makes_no_interaction(double: Encoded):
    features = {k: dict(v) for k, v in double.features.items()}
    features["radar"]["occupancy"] = torch.zeros_like(features["radar"]["occupancy"])
    result = decompose(
        double.fuse, features, "identity-ratio", root=double.network, bilinear="interaction"
    )
    assert result["task0.heatmap"].interaction.abs().max() == 0
    assert result["task0.heatmap"].parts["camera"].abs().max() > 0


def test_the_boundary_at_the_fuser_gives_the_product_to_the_camera(double: Encoded):
    at_fuser = Encoded(torch.float64, "fuser")
    cut, whole = (e.decompose("identity-ratio", bilinear="interaction") for e in (at_fuser, double))
    assert torch.allclose(cut["task0.heatmap"].total, whole["task0.heatmap"].total, atol=1e-12)
    assert cut["task0.heatmap"].interaction.abs().max() == 0
    # The radar half is radar under both; what the image half holds moves to the camera.
    near = torch.allclose
    assert near(
        cut["task0.heatmap"].parts["radar"], whole["task0.heatmap"].parts["radar"], atol=1e-9
    )
    assert not near(cut["task0.heatmap"].parts["camera"], whole["task0.heatmap"].parts["camera"])
