"""Whatever a method does, the user's network and features are left as they were found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.attribution import METHODS, method_named, parts, scores
from lmd_cli.errors import LmdError, MethodError
from tests.support.rule_oracle import normal


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.InstanceNorm2d(3)
        )
        self.head = nn.Conv2d(3, 1, 1)
        self.breaks = False

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        h = self.body(torch.cat([camera, radar], 1))
        if self.breaks:
            raise ValueError("broken on purpose")
        return self.head(h)


def snapshot(network: Network) -> dict[str, Any]:
    hooks = {
        (name, attribute): dict(getattr(module, attribute))
        for name, module in network.named_modules()
        for attribute in vars(module)
        if attribute.endswith("_hooks")
    }
    return {
        "state": {name: (v.clone(), v._version) for name, v in network.state_dict().items()},
        "attributes": {name: sorted(vars(m)) for name, m in network.named_modules()},
        "gradients": [(p.requires_grad, p.grad) for p in network.parameters()],
        "hooks": hooks,
        "training": [m.training for m in network.modules()],
    }


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    states = zip(a["state"].values(), b["state"].values(), strict=True)
    equal = all(torch.equal(x, y) and v == w for (x, v), (y, w) in states)
    return equal and all(a[key] == b[key] for key in a if key != "state")


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_network_and_features_stay(name: str, breaks: bool) -> None:
    network = Network().double().eval()
    features = {"camera": normal(1, 1, 6, 6), "radar": normal(1, 1, 6, 6, seed=1)}
    kept = {key: value.clone() for key, value in features.items()}
    before, gradients_on = snapshot(network), torch.is_grad_enabled()
    network.breaks = breaks
    if breaks:
        with pytest.raises(ValueError, match="broken on purpose"):
            scores(method_named(name), network, features, lambda y: y.flatten(1)[:, :2])
    else:
        actual = scores(method_named(name), network, features, lambda y: y.flatten(1)[:, :2])
        assert all(not value.requires_grad for value in actual.values())
    network.breaks = False
    assert same(before, snapshot(network))
    assert torch.is_grad_enabled() == gradients_on
    for key, value in features.items():
        assert torch.equal(value, kept[key])
        assert not value.requires_grad
        assert value.grad is None


def test_a_backward_method_gives_no_maps() -> None:
    with pytest.raises(MethodError, match="lrp works backwards from single numbers"):
        parts(method_named("lrp"), lambda camera: camera, {"camera": normal(1, 2)})


def test_unknown_methods_are_answered_with_near_names() -> None:
    with pytest.raises(MethodError, match=r"no method 'shaply'; did you mean 'shapley'\?"):
        method_named("shaply")
    with pytest.raises(MethodError, match=r"method 'lmd:identity-ration': .* is not a variant"):
        method_named("lmd:identity-ration")
    for cam in ("gradcam", "grad-cam", "scorecam"):
        with pytest.raises(MethodError, match=r"maps a layer .* lmd gradcam makes it"):
            method_named(cam)
    with pytest.raises(LmdError, match="no method 'lrp:identity-ratio'"):
        method_named("lrp:identity-ratio")
    assert method_named("lmd-shapley:identity-identity").name == "lmd-shapley:identity-identity"
