"""LMD behind the interface, LMD + Shapley, and partial linearisation."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.attribution import parts
from lmd_cli.attribution.coalitions import Coalitions
from lmd_cli.attribution.linearised import Lmd, LmdShapley, PartialLinearisation
from lmd_cli.attribution.removal import LeaveOneOut, Shapley
from lmd_cli.decomposition import DecompositionError, decompose, set_module_rules
from lmd_cli.decomposition.linearised.partial import (
    ACTIVATIONS,
    NORMALISATIONS,
    PartiallyLinear,
)
from tests.support.random_networks import Case, cases
from tests.support.rule_oracle import normal

RUNS = settings(max_examples=25, deadline=None, derandomize=True)


def leaves(tree: Any) -> list[Tensor]:
    return pytree.tree_leaves(tree)


def close(actual: Any, wanted: Any, tolerance: float = 1e-11) -> None:
    for a, b in zip(leaves(actual), leaves(wanted), strict=True):
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


def perturbed(case: Case) -> dict[str, Any]:
    return {name: values[0] for name, values in case.extras.items()}


@RUNS
@given(cases())
def test_lmd_gives_the_parts_clean_and_perturbed(case: Case) -> None:
    explainer = Lmd(case.variant).at(case.network, case.inputs)
    wanted = decompose(case.network, case.inputs, case.variant, extras=case.extras)
    clean, moved = explainer.parts(case.inputs), explainer.parts(perturbed(case))
    for name in case.inputs:
        close(clean[name], wanted.parts[name])
        close(moved[name], wanted.extras[name][0])
    close(clean["bias"], wanted.bias)
    close(moved["bias"], wanted.bias)


@pytest.mark.parametrize("norm", ["ratio", "identity"])
@RUNS
@given(case=cases())
def test_with_everything_linearised_leave_one_out_is_lmd(norm: Any, case: Case) -> None:
    method = PartialLinearisation("everything", norm)
    wanted = decompose(case.network, case.inputs, f"identity-{norm}", extras=case.extras)
    explainer = method.at(case.network, case.inputs)
    clean, moved = explainer.parts(case.inputs), explainer.parts(perturbed(case))
    for name in case.inputs:
        close(clean[name], wanted.parts[name])
        close(moved[name], wanted.extras[name][0])
    close(clean["bias"], wanted.bias)


@RUNS
@given(cases())
def test_with_nothing_linearised_it_is_the_network(case: Case) -> None:
    result = decompose(case.network, case.inputs, "identity-ratio", keep_maps=True)
    bare = PartiallyLinear(result, frozenset())
    with torch.no_grad():
        wanted = case.network(**pytree.tree_map(torch.clone, perturbed(case)))
    close(bare(**perturbed(case)), wanted)


@pytest.mark.parametrize("what", ["activations", "normalisations", "everything"])
@RUNS
@given(case=cases())
def test_at_the_operating_point_it_is_the_network(what: Any, case: Case) -> None:
    actual = parts(PartialLinearisation(what), case.network, case.inputs)
    with torch.no_grad():
        total = case.network(**pytree.tree_map(torch.clone, case.inputs))
    sums = [sum(values) for values in zip(*map(leaves, actual.values()), strict=True)]
    close(sums, total)


class Small(nn.Module):
    """Convolution, InstanceNorm, ReLU, twice; written out below for each baseline."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 1, 3)
        self.norm = nn.InstanceNorm2d(4, affine=True)

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return self.second(F.relu(self.norm(self.first(torch.cat([camera, radar], 1)))))


@pytest.fixture
def small() -> Small:
    network = Small().double()
    with torch.no_grad():
        network.norm.weight.uniform_(0.5, 2.0)
        network.norm.bias.normal_()
    return network


CLEAN = {"camera": normal(1, 1, 7, 8), "radar": normal(1, 1, 7, 8, seed=1)}
MOVED = {"camera": normal(3, 1, 7, 8, seed=2), "radar": normal(3, 1, 7, 8, seed=3)}


def by_hand(network: Small, what: str, camera: Tensor, radar: Tensor) -> Tensor:
    """The network with its mask, or its variance, that of the clean sample."""
    first = network.first(torch.cat([CLEAN["camera"], CLEAN["radar"]], 1))
    variance, mask = first.var((2, 3), correction=0, keepdim=True), network.norm(first) > 0
    h = network.first(torch.cat([camera, radar], 1))
    if what == "normalisations":
        deviation = torch.sqrt(variance + network.norm.eps)
        weight, bias = (p.reshape(1, -1, 1, 1) for p in (network.norm.weight, network.norm.bias))
        h = (h - h.mean((2, 3), keepdim=True)) / deviation * weight + bias
        return network.second(F.relu(h))
    return network.second(network.norm(h) * mask)


@pytest.mark.parametrize("what", ["activations", "normalisations"])
def test_partly_linear_networks_written_out(small: Small, what: Any) -> None:
    actual = PartialLinearisation(what).at(small, CLEAN).parts(MOVED)
    zero = torch.zeros_like(MOVED["camera"])
    with torch.no_grad():
        total = by_hand(small, what, **MOVED)
        close(actual["camera"], total - by_hand(small, what, zero, MOVED["radar"]))
        close(actual["radar"], total - by_hand(small, what, MOVED["camera"], zero))


class Attending(nn.Module):
    """Deformable sampling at places that the features choose, and attention weights."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.weights = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 1)
        self.values, self.norm = nn.Conv2d(3, 4, 1), nn.LayerNorm(4)

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        query = camera + radar
        grid = self.places(query).permute(0, 2, 3, 1).tanh()  # (B, H, W, 2)
        sampled = F.grid_sample(self.values(radar), grid, align_corners=False)
        mixed = torch.softmax(self.weights(query), 1) * sampled
        return self.norm(mixed.permute(0, 2, 3, 1)).relu()


@pytest.mark.parametrize("what", ["activations", "normalisations", "everything"])
def test_attention_and_sampling_are_frozen_with_the_activations(what: Any) -> None:
    network = Attending().double().eval()
    clean = {"camera": normal(1, 3, 4, 5), "radar": normal(1, 3, 4, 5, seed=1)}
    moved = {"camera": normal(1, 3, 4, 5, seed=2), "radar": normal(1, 3, 4, 5, seed=3)}
    actual = PartialLinearisation(what).at(network, clean).parts(moved)

    def by_hand(camera: Tensor, radar: Tensor) -> Tensor:
        """Every frozen quantity is worked out at the clean sample."""
        frozen, query = clean["camera"] + clean["radar"], camera + radar
        deciding = query if what == "normalisations" else frozen
        grid = network.places(deciding).permute(0, 2, 3, 1).tanh()
        sampled = F.grid_sample(network.values(radar), grid, align_corners=False)
        mixed = torch.softmax(network.weights(deciding), 1) * sampled
        out = mixed.permute(0, 2, 3, 1)  # (B, H, W, 4)
        at = network.places(frozen).permute(0, 2, 3, 1).tanh()
        source = F.grid_sample(network.values(clean["radar"]), at, align_corners=False)
        source = (torch.softmax(network.weights(frozen), 1) * source).permute(0, 2, 3, 1)
        if what == "activations":
            return network.norm(out) * (network.norm(source) > 0)
        deviation = torch.sqrt(source.var(-1, correction=0, keepdim=True) + network.norm.eps)
        out = (out - out.mean(-1, keepdim=True)) / deviation
        return out.relu() if what == "normalisations" else out * (network.norm(source) > 0)

    zero = torch.zeros_like(moved["camera"])
    with torch.no_grad():
        total = by_hand(**moved)
        close(actual["camera"], total - by_hand(zero, moved["radar"]))
        close(actual["radar"], total - by_hand(moved["camera"], zero))


def test_the_baselines_differ(small: Small) -> None:
    """Otherwise the tests above could not tell them apart."""
    methods = [LeaveOneOut(), *map(PartialLinearisation, ("activations", "normalisations"))]
    actual = [m.at(small, CLEAN).parts(MOVED)["camera"] for m in [*methods, Lmd()]]
    distances = [float((a - b).abs().max()) for i, a in enumerate(actual) for b in actual[:i]]
    assert min(distances) > 0.05


def test_statistics_shared_out_among_modalities_are_refused(small: Small) -> None:
    for variant in ("identity-uniform", "identity-ratio-sum"):
        result = decompose(small, CLEAN, variant, keep_maps=True)
        with pytest.raises(DecompositionError, match="decompose with identity-ratio or"):
            PartiallyLinear(result, ACTIVATIONS)
    with pytest.raises(DecompositionError, match="keep_maps=True"):
        PartiallyLinear(decompose(small, CLEAN), NORMALISATIONS)


def lmd_shapley_by_hand(case: Case, features: dict[str, Any]) -> dict[str, list[Tensor]]:
    """h_m of the clean sample's linear network, and phi_m over all orders of arrival."""

    def bias(present: set[str]) -> list[Tensor]:
        inputs = {
            name: pytree.tree_map(torch.clone if name in present else torch.zeros_like, tree)
            for name, tree in features.items()
        }
        return leaves(decompose(case.network, inputs, case.variant).bias)

    extras = {name: [tree] for name, tree in features.items()}
    linear = decompose(case.network, case.inputs, case.variant, extras=extras)
    orders = list(permutations(features))
    actual = {}
    for name in features:
        gains = []
        for order in orders:
            before = set(order[: order.index(name)])
            gains.append([a - b for a, b in zip(bias(before | {name}), bias(before), strict=True)])
        phi = [torch.stack(column).mean(0) for column in zip(*gains, strict=True)]
        actual[name] = [h + p for h, p in zip(leaves(linear.extras[name][0]), phi, strict=True)]
    return actual


@settings(max_examples=12, deadline=None, derandomize=True)
@given(cases(max_blocks=3))
def test_lmd_shapley_is_its_definition(case: Case) -> None:
    assume(len(case.inputs) <= 3)
    explainer = LmdShapley(case.variant).at(case.network, case.inputs)
    clean, moved = explainer.parts(case.inputs), explainer.parts(perturbed(case))
    for features, actual in ((case.inputs, clean), (perturbed(case), moved)):
        for name, wanted in lmd_shapley_by_hand(case, features).items():
            close(actual[name], wanted)
    with torch.no_grad():
        total = case.network(**pytree.tree_map(torch.clone, case.inputs))
    close([sum(values) for values in zip(*map(leaves, clean.values()), strict=True)], total)


def test_lmd_shapley_is_shapley_plus_how_linear_parts_change(small: Small) -> None:
    """With two sensors: phi_c + (h_c - h_c without radar) / 2 - (h_r - h_r without camera) / 2.

    So it is the Shapley value unless a linear part changes when the other sensor is zeroed; under
    a moved radar the clean h_c stands for one half of the moved one and what it misses is added.
    """
    moved = {"camera": CLEAN["camera"], "radar": MOVED["radar"][:1]}

    def linear(**present: Tensor) -> dict[str, Tensor]:
        zeros = {name: torch.zeros_like(x) for name, x in CLEAN.items()}
        return dict(decompose(small, {**zeros, **present}).parts)

    clean_camera = linear(**CLEAN)["camera"]
    explainer = LmdShapley("identity-ratio").at(small, CLEAN)
    for features in (CLEAN, moved):
        both = linear(**features)
        camera_alone = linear(camera=features["camera"])["camera"]
        radar_alone = linear(radar=features["radar"])["radar"]
        phi = parts(Shapley(), small, features)["camera"]
        wanted = phi + clean_camera - (both["camera"] + camera_alone) / 2
        wanted = wanted - (both["radar"] - radar_alone) / 2
        close(explainer.parts(features)["camera"], wanted)
        assert float((wanted - phi).abs().max()) > 0.01


def test_rules_of_some_modules_hold_for_every_coalition() -> None:
    """Under a rule that hands constants to the modalities, absent features still get a share."""
    torch.manual_seed(3)
    norm = nn.BatchNorm2d(2).eval()
    nn.init.constant_(norm.bias, 1.0)
    network = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), norm, nn.ReLU())
    features = {name: torch.rand(1, 2, 3, 3) for name in ("camera", "radar")}

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return network(camera + radar)

    uniform = parts(LmdShapley("uniform-ratio"), fuse, features)
    set_module_rules(network, {"*": {"batch_norm": "uniform"}})
    ruled = parts(LmdShapley("identity-ratio"), fuse, features)
    for name, part in uniform.items():
        torch.testing.assert_close(ruled[name], part)


def test_lmd_shapley_of_a_product_sums_to_the_network() -> None:
    """Also where no sensor is present, and what is multiplied has no part at all."""
    network = Attending().double().eval()

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return network(camera * radar, radar)

    actual = parts(LmdShapley(), fuse, CLEAN_THREE)
    with torch.no_grad():
        close(sum(actual.values()), fuse(**CLEAN_THREE))


CLEAN_THREE = {"camera": normal(1, 3, 4, 5), "radar": normal(1, 3, 4, 5, seed=1)}


def attending(camera: Tensor, radar: Tensor) -> Tensor:
    """Products of features, and a bias in both factors."""
    scores = (camera + 0.3) @ (radar - 0.2).transpose(1, 2)
    return scores.softmax(-1) @ radar + (camera + 0.5) * (radar + 0.1)


@pytest.mark.parametrize("remembers", [False, True])
def test_lmd_shapley_where_features_are_multiplied(remembers: bool) -> None:
    """The values of all four coalitions written out."""
    full = {"camera": normal(1, 3, 4), "radar": normal(1, 3, 4, seed=1)}
    none = {name: torch.zeros_like(x) for name, x in full.items()}

    def bias(*present: str) -> Tensor:
        given = {name: full[name] if name in present else none[name] for name in full}
        return decompose(attending, given).bias

    fuse = Coalitions(attending, broadcasts=False) if remembers else attending
    actual = parts(LmdShapley(), fuse, full)
    own = decompose(attending, full).parts
    for name, other in (("camera", "radar"), ("radar", "camera")):
        gain = (bias(name, other) - bias(other) + bias(name) - bias()) / 2
        close(actual[name], own[name] + gain)
    close(actual["bias"], bias())
