"""Parts after any module, by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import Decomposition, InputError, decompose
from tests.support.rule_oracle import normal


class Network(nn.Module):
    """``shared`` runs twice; ``split`` returns a dict; ``aside`` sees only constants."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 1)
        self.shared = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.split = Split()
        self.aside = nn.Linear(3, 4)
        self.unused = nn.Identity()

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        x = self.shared(self.stem(camera + radar))
        x = self.shared(x)
        code = self.aside(torch.ones(3).double())
        return self.split(x)["left"] + code[0]


class Split(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        left, right = x.chunk(2, 1)
        return {"left": left * 2.0, "right": right + 1.0}


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().double().eval()


INPUTS = {"camera": normal(1, 2, 4, 4), "radar": normal(1, 2, 4, 4, seed=1)}


def run(layers: Any, **options: Any) -> Decomposition:
    return decompose(network(), INPUTS, layers=layers, **options)


def plain_outputs() -> dict[str, Tensor]:
    """What hooks see in the plain network, cloned at once because of the in-place ReLU."""
    seen: dict[str, Tensor] = {}
    net = network()
    for name, module in net.named_modules():

        def hook(m: nn.Module, args: Any, out: Any, name: str = name) -> None:
            key = f"{name}#2" if name in seen else name
            seen[key] = (
                out.clone() if isinstance(out, Tensor) else {k: v.clone() for k, v in out.items()}
            )

        module.register_forward_hook(hook)
    with torch.no_grad():
        net(**INPUTS)
    return seen


def test_all_layers() -> None:
    result, plain = run("all"), plain_outputs()
    assert list(result.layers) == [
        "stem",
        "shared.0",
        "shared.1",
        "shared",
        "shared.0#2",
        "shared.1#2",
        "shared#2",
        "split",
        "",
    ]
    for name, layer in result.layers.items():
        assert layer.residual < 1e-14
        if name != "split":
            assert torch.equal(layer.total, plain[name])
            sums = layer.parts["camera"] + layer.parts["radar"] + layer.bias
            torch.testing.assert_close(sums, layer.total)


def test_a_layer_keeps_its_output_from_later_writes_in_place() -> None:
    result = run(["shared.0"])
    assert (result.layers["shared.0"].total < 0).any()


def test_chosen_layers_mirror_the_modules_output() -> None:
    result = run(["split", "stem"])
    assert list(result.layers) == ["stem", "split"]
    assert result.layers["split"]["right"].total.shape == (1, 2, 4, 4)
    assert result.layers["split"].bias.keys() == {"left", "right"}


def test_one_name_may_be_given_as_it_is() -> None:
    assert list(run("stem").layers) == ["stem"]
    assert not run(()).layers


def test_layers_carry_extras() -> None:
    result = run(["stem"], extras={"radar": [INPUTS["radar"] * 2.0]})
    torch.testing.assert_close(
        result.layers["stem"].extras["radar"][0], 2.0 * result.layers["stem"].parts["radar"]
    )


def test_an_unknown_layer_is_told_near_names() -> None:
    with pytest.raises(InputError, match=r"unknown layer 'shared\.2'; near: shared\.[01]"):
        run(["stem", "shared.2"])
    with pytest.raises(InputError, match=r"unknown layer 'nothing like it'$"):
        run(["nothing like it"])


def test_without_a_root_no_layer_is_known() -> None:
    with pytest.raises(InputError, match="unknown layer 'stem'"):
        decompose(lambda camera: camera * 2.0, {"camera": INPUTS["camera"]}, layers=["stem"])


def test_a_module_with_two_names_goes_by_the_first() -> None:
    net = nn.Sequential(nn.Linear(3, 3)).double()
    net.append(net[0])
    function = (lambda n: lambda camera: n(camera))(net)
    result = decompose(function, {"camera": normal(2, 3)}, layers="all")
    assert list(result.layers) == ["0", "0#2", ""]
