"""Class activation maps against their definitions, computed another way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.attribution.cam import METHODS, activation_maps, plus_plus
from lmd_cli.decomposition import decompose
from lmd_cli.errors import ConfigError


class Fusion(nn.Module):
    """Two convolutions with an activation that works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(6, 1, 3, padding=1)
        self.unused = nn.Conv2d(4, 1, 1)

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        hidden = self.norm(self.first(torch.cat([camera, radar], dim=1)))
        return self.head(self.relu(hidden))


@pytest.fixture
def network() -> Fusion:
    net = Fusion().double().eval().requires_grad_(False)
    net.norm.running_mean.normal_()
    return net


@pytest.fixture
def features() -> dict[str, Tensor]:
    return {name: torch.randn(1, 2, 9, 7).double() for name in ("camera", "radar")}


def region() -> Tensor:
    cells = torch.zeros(9, 7, dtype=torch.bool)
    cells[2:5, 1:4] = True
    return cells


def test_gradcam_is_its_definition(network: Fusion, features: dict[str, Tensor]):
    actual = activation_maps(network, features, network, "norm", region())
    before = network.norm(network.first(torch.cat(list(features.values()), dim=1)))
    before = before.requires_grad_()
    score = network.head(torch.relu(before))[0, 0][region()].sum()
    (gradient,) = torch.autograd.grad(score, before)
    alpha = gradient[0].mean(dim=(1, 2))
    torch.testing.assert_close(actual.weights, alpha)
    expected = (alpha[:, None, None] * before[0].detach()).sum(0).clamp(min=0)
    torch.testing.assert_close(actual.whole, expected)
    assert actual.score == pytest.approx(float(score.detach()))
    assert actual.whole.any()


def test_gradients_agree_with_finite_differences(network: Fusion, features: dict[str, Tensor]):
    actual = activation_maps(network, features, network, "relu", region())
    hidden = torch.relu(network.norm(network.first(torch.cat(list(features.values()), dim=1))))
    step = 1e-6
    for channel in range(6):
        moved = hidden.clone()
        moved[0, channel] += step
        change = network.head(moved)[0, 0][region()].sum() - actual.score
        assert float(actual.weights[channel]) == pytest.approx(float(change) / step / 63, abs=1e-6)


@pytest.mark.parametrize("layer", ["first", "norm", "relu"])
def test_a_modalitys_map_takes_its_part_of_the_activations(
    network: Fusion, features: dict[str, Tensor], layer: str
):
    actual = activation_maps(network, features, network, layer, region())
    part = decompose(network, features, layers=[layer]).layers[layer].parts["radar"][0]
    expected = (actual.weights[:, None, None] * part).sum(0).clamp(min=0)
    torch.testing.assert_close(actual.parts["radar"], expected)
    parts = decompose(network, features, layers=[layer]).layers[layer]
    whole = sum((actual.weights[:, None, None] * p[0]).sum(0) for p in parts.parts.values())
    whole = whole + (actual.weights[:, None, None] * parts.bias[0]).sum(0)
    torch.testing.assert_close(whole.clamp(min=0), actual.whole)


def test_plus_plus_is_the_formula_cell_by_cell():
    activation, gradient = torch.rand(3, 4, 5).double(), torch.randn(3, 4, 5).double()
    gradient[0, 0] = 0.0
    expected = []
    for a, g in zip(activation, gradient, strict=True):
        total = 0.0
        for i in range(4):
            for j in range(5):
                below = 2 * g[i, j] ** 2 + a.sum() * g[i, j] ** 3
                share = 0.0 if below == 0 else g[i, j] ** 2 / below
                total += float(share * max(g[i, j], 0.0))
        expected.append(total)
    torch.testing.assert_close(plus_plus(activation, gradient), torch.tensor(expected).double())


def test_score_weights_follow_the_masked_scores(network: Fusion, features: dict[str, Tensor]):
    actual = activation_maps(network, features, network, "relu", region(), method="scorecam")
    hidden = torch.relu(network.norm(network.first(torch.cat(list(features.values()), dim=1))))
    scores = []
    for channel in hidden[0]:
        mask = (channel - channel.min()) / (channel.max() - channel.min())
        masked = {name: value * mask for name, value in features.items()}
        scores.append(network(**masked)[0, 0][region()].sum())
    expected = torch.stack(scores).softmax(0)  # the baseline cancels
    torch.testing.assert_close(actual.weights, expected)
    assert float(actual.weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was(network: Fusion, features: dict[str, Tensor], method: str):
    state = {name: value.clone() for name, value in network.state_dict().items()}
    before = network(**features)
    activation_maps(network, features, network, "norm", region(), method=method)  # type: ignore[arg-type]
    assert not any(module._forward_hooks for module in network.modules())
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert not any(value.requires_grad for value in features.values())
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
    assert torch.equal(network(**features), before)


def test_errors_leave_nothing_behind_and_name_what_is_near(
    network: Fusion, features: dict[str, Tensor]
):
    with pytest.raises(ConfigError, match=r"no layer 'nrom'; near: norm"):
        activation_maps(network, features, network, "nrom", region())
    with pytest.raises(ConfigError, match="'unused' did not run after the sensors met"):
        activation_maps(network, features, network, "unused", region())
    assert not network.unused._forward_hooks


class Twice(Fusion):
    """Its activation runs twice; the second time on half of the first plus one: it passes all."""

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        hidden = self.relu(self.norm(self.first(torch.cat([camera, radar], dim=1))))
        return self.head(self.relu(hidden / 2 + 1)).flatten(1)[:, None, None]


def test_each_run_of_a_layer_can_be_chosen(features: dict[str, Tensor]):
    net = Twice().double().eval().requires_grad_(False)
    cells = torch.ones(1, 63, dtype=torch.bool)
    first, second = (
        activation_maps(net, features, net, layer, cells) for layer in ("relu#1", "relu#2")
    )
    torch.testing.assert_close(first.weights * 2, second.weights)
    # Half the weights, twice the sensors' parts; the one goes to the bias.
    torch.testing.assert_close(first.parts["radar"], second.parts["radar"])
    assert first.parts["radar"].any()
    assert not torch.allclose(first.whole, second.whole)
    for layer in ("relu", "relu#3"):
        with pytest.raises(ConfigError, match=r"'relu' ran 2 times .*: relu#1, relu#2"):
            activation_maps(net, features, net, layer, cells)
    with pytest.raises(ConfigError, match=r"'norm' ran 1 times .*: norm$"):
        activation_maps(net, features, net, "norm#2", cells)


def test_a_layer_without_a_grid_says_what_it_gives(features: dict[str, Tensor]):
    class Tokens(Fusion):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Flatten(2)

        def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
            hidden = self.flat(self.first(torch.cat([camera, radar], dim=1)))
            return self.head(hidden.unflatten(2, (9, 7)))

    net = Tokens().double().eval().requires_grad_(False)
    with pytest.raises(ConfigError, match=r"layer 'flat' gives \(1, 6, 63\); one that gives"):
        activation_maps(net, features, net, "flat", region())
