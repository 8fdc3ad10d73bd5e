"""Other rules for some modules, by their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import (
    Decomposition,
    InputError,
    decompose,
)
from tests.support.rule_oracle import assert_replayed, normal

C, R = normal(2, 3, 4), normal(2, 3, 4, seed=1)


INPUTS = {"camera": C, "radar": R}


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Linear(4, 4), nn.SiLU())
        self.layer3 = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.LayerNorm(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer3(self.layer1(x))


with torch.random.fork_rng():
    torch.manual_seed(0)
    DECODER = nn.ModuleDict({"decoder": Decoder()}).double().eval()


def decoded(variant: str = "identity-ratio", **options: Any) -> Decomposition:
    return decompose(
        lambda camera, radar: DECODER["decoder"](camera + radar),
        INPUTS,
        variant,
        root=DECODER,
        layers=["decoder.layer1"],
        audit=True,
        **options,
    )


def test_other_rules_for_some_modules_by_name() -> None:
    rules = {"decoder.layer3.*": {"activation": "taylor"}}
    base, mixed = decoded(), decoded(rules=rules)
    taylor = decoded("identity-ratio-taylor-frozen")
    assert torch.equal(mixed.total, base.total)
    first = "decoder.layer1"
    assert torch.equal(mixed.layers[first].parts["camera"], base.layers[first].parts["camera"])
    assert not torch.allclose(mixed.parts["camera"], base.parts["camera"], atol=1e-3)
    assert not torch.allclose(mixed.parts["camera"], taylor.parts["camera"], atol=1e-3)
    everywhere = decoded(rules={"*": {"activation": "taylor"}})
    assert torch.equal(everywhere.parts["camera"], taylor.parts["camera"])
    assert max(record.residual for record in mixed.operations) < 1e-13


def test_later_patterns_win_and_several_fields_may_be_set() -> None:
    rules = {
        "decoder.*": {"norm": "identity", "activation": "taylor"},
        "decoder.layer3.2": {"norm": "uniform"},
    }
    result = decoded(rules=rules)
    wanted = decoded("identity-uniform-taylor-frozen")
    assert torch.equal(result.parts["radar"], wanted.parts["radar"])
    function = lambda camera, radar: DECODER["decoder"](camera + radar)  # noqa: E731
    kept = decompose(function, INPUTS, root=DECODER, rules=rules, keep_maps=True)
    assert_replayed(INPUTS, kept)


def test_functions_in_a_module_outside_the_root_follow_the_module_around_it() -> None:
    class Inline(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.SiLU()(x)  # made on the spot: it has no name of its own

    root = nn.Sequential(Inline())
    function = lambda camera, radar: root(camera + radar)  # noqa: E731
    rules = {"0": {"activation": "taylor"}}
    result = decompose(function, INPUTS, root=root, rules=rules)
    wanted = decompose(function, INPUTS, "identity-ratio-taylor-frozen", root=root)
    assert torch.equal(result.parts["camera"], wanted.parts["camera"])


BAD_RULES: dict[str, tuple[Any, str]] = {
    "no module": (
        {"decoder.layer2.*": {"norm": "identity"}},
        r"matches no module; near: decoder\.",
    ),
    "no field": (
        {"decoder.*": {"activations": "taylor"}},
        "sets 'activations'; there are batch_norm",
    ),
    "no value": (
        {"decoder.*": {"activation": "tailor"}},
        r"'decoder\.\*': variant: activation must",
    ),
}


@pytest.mark.parametrize("name", BAD_RULES)
def test_bad_overrides(name: str) -> None:
    rules, message = BAD_RULES[name]
    with pytest.raises(InputError, match=message):
        decoded(rules=rules)


def test_names_need_a_root() -> None:
    with pytest.raises(InputError, match="give root="):
        decompose(lambda camera: camera, {"camera": C}, rules={"*": {"norm": "identity"}})
