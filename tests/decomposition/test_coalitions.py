"""The variant ``coalitions``: Shapley values of every layer of whole networks."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as drawn
from hypothesis import settings
from torch import Tensor, nn

from lmd_cli.decomposition import (
    ConservationError,
    InputError,
    decompose,
    decompose_onward,
    explain_coverage,
    set_module_rules,
)
from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.linearised.heads import find_heads
from lmd_cli.decomposition.linearised.partial import ACTIVATIONS, PartiallyLinear, first_deviation
from lmd_cli.decomposition.linearised.replay import (
    Linearised,
    replay,
    replay_deviation,
)
from lmd_cli.decomposition.variant import Variant
from lmd_cli.evaluation.variants import base_variant
from tests.decomposition.test_coalition_networks import SHAPE, Fusing
from tests.decomposition.test_coalition_slopes import close, inputs
from tests.support.random_networks import Case, cases
from tests.support.rule_oracle import normal
from tests.support.shapley_oracle import assert_shapley, shapley_of_layers

RUNS = settings(max_examples=20, deadline=None, derandomize=True)


def decides_by_features(case: Case) -> bool:
    """Whether a mask of features is in it, which stays that of the operating point."""
    return any(name in ("changed mask", "where") for name in case.recipe)


# -- whole networks --------------------------------------------------------------------------------


@RUNS
@drawn(cases(max_blocks=4, most=3))
def test_shapley_values_at_every_layer(case: Case) -> None:
    result = decompose(case.network, case.inputs, "coalitions", layers="all", audit=True)
    assert max(record.residual for record in result.operations) < 1e-12
    if decides_by_features(case):
        return
    wanted = shapley_of_layers(case.network, case.inputs)
    assert_shapley(result, wanted[""])
    layers = {name: layer for name, layer in result.layers.items() if name in wanted}
    assert {"merge", "blocks", "dense"} & wanted.keys() <= layers.keys() | {"vector"}
    for name, layer in layers.items():
        assert layer.residual < 1e-12
        if name:
            assert_shapley(layer, wanted[name])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_program_and_what_rides_along(count: int) -> None:
    """Every way to a replaced sensor's part gives the same, and the clean one is exact."""
    network = Fusing(count)
    given = {f"m{i}": normal(*SHAPE, seed=i) for i in range(count)}
    riding = {name: [normal(*SHAPE, seed=10 + i)] for i, name in enumerate(given)}
    result = decompose(network, given, "coalitions", extras=riding, keep_maps=True)
    assert torch.equal(result.total, network(**given))
    assert_shapley(result, shapley_of_layers(network, given)[""])
    assert replay_deviation(replay(result, given), result) < 1e-12
    linear = Linearised(result)
    for name, (x,) in riding.items():
        close(linear.part(name, x), result.extras[name][0])
        close(linear.part(name, torch.cat([x, given[name]]))[1:], result.parts[name])
        close(linear.parts(name, [x, given[name]])[0], result.extras[name][0])


def test_extras_of_layers_and_of_an_intermediate_tensor() -> None:
    network, given = Fusing(), inputs(2, SHAPE)
    riding = {name: [x, 2 * x] for name, x in given.items()}
    whole = decompose(network, given, "coalitions", extras=riding, layers=["deep"])
    for actual in (whole, whole.layers["deep"]):
        for name in given:
            close(actual.extras[name][0], actual.parts[name])
    layer = decompose(
        lambda **x: network.mix(torch.cat(list(x.values()), 1)), given, "coalitions", extras=riding
    )

    def tail(x: Tensor) -> Tensor:
        h = network.act(network.norm(x))
        return network.head(F.gelu(network.inner(network.deep(h)))).sigmoid()

    onward = decompose_onward(
        tail, layer.total, layer.parts, "coalitions", bias=layer.bias, extras=layer.extras
    )
    for name in given:
        close(onward.parts[name], whole.parts[name])
        for a, b in zip(onward.extras[name], whole.extras[name], strict=True):
            close(a, b)


def test_batches_are_their_samples() -> None:
    network, given = Fusing(), inputs(2, (3, *SHAPE[1:]))
    result = decompose(network, given, "coalitions")
    for i in range(3):
        alone = decompose(network, {m: x[i : i + 1] for m, x in given.items()}, "coalitions")
        for m in given:
            close(result.parts[m][i : i + 1], alone.parts[m])


def test_half_precision_and_gradients() -> None:
    network, given = Fusing(), inputs(2, SHAPE)
    halves = {m: x.bfloat16() for m, x in given.items()}
    result = decompose(
        Fusing().bfloat16(), halves, "coalitions", extras={"camera": [halves["radar"]]}
    )
    assert result.parts["camera"].dtype == torch.bfloat16
    leaves = {m: x.clone().requires_grad_() for m, x in given.items()}
    result = decompose(network, leaves, "coalitions", grad=True)
    gradient = torch.autograd.grad(result.parts["camera"].sum(), leaves["camera"])[0]
    step = 1e-6
    moved = decompose(network, {**given, "camera": given["camera"] + step}, "coalitions")
    rise = (moved.parts["camera"] - result.parts["camera"].detach()).sum() / step
    torch.testing.assert_close(gradient.sum(), rise, rtol=1e-4, atol=1e-6)


# -- what it does not do ---------------------------------------------------------------------------


def test_more_than_five_modalities_are_refused() -> None:
    given = {f"m{i}": normal(1, 2, seed=i) for i in range(6)}
    with pytest.raises(InputError, match=r"6 modalities have 64 coalitions.*192 slopes.*at most 5"):
        decompose(lambda **x: torch.relu(sum(x.values())), given, "coalitions")


def test_values_that_do_not_fit_into_memory_are_named() -> None:
    """The error is that of torch's allocator; others pass as they are."""

    def endless(camera: Tensor, radar: Tensor) -> Tensor:
        return torch.relu(camera + radar).expand(1 << 46, -1) * 2.0

    given = {"camera": normal(1, 2, seed=1), "radar": normal(1, 2, seed=2)}
    with pytest.raises(MemoryError, match=r"values of 4 coalitions.*take identity-ratio-shapley"):
        decompose(endless, given, "coalitions")
    with pytest.raises(RuntimeError, match="must match the size"):
        decompose(lambda camera, radar: camera + radar[:, :0], given, "coalitions")


def test_it_leaves_no_other_rule_open() -> None:
    assert (
        Variant.parse(" Coalitions").name == str(Variant(activation="coalitions")) == "coalitions"
    )
    for name in ("uniform-ratio-coalitions", "identity-ratio-coalitions", "coalitions-taylor"):
        with pytest.raises(ValueError, match="write coalitions alone"):
            Variant.parse(name)
    with pytest.raises(ValueError, match="write coalitions alone"):
        Variant("uniform", activation="coalitions")
    with pytest.raises(ValueError, match="did you mean 'coalitions'"):
        Variant.parse("coalition")
    network, given = Fusing(), inputs(2, SHAPE)
    wrong = "'act': coalitions holds for the whole network"
    with pytest.raises(InputError, match=wrong):
        decompose(network, given, "identity-ratio", rules={"act": {"activation": "coalitions"}})
    set_module_rules(network, {"act": {"activation": "taylor"}})
    with pytest.raises(InputError, match=wrong):
        decompose(network, given, "coalitions")
    assert base_variant(Variant.parse("coalitions")).name == "coalitions"


def test_the_larger_divisor_divides() -> None:
    """Without any sensor the norm is its eps, and would make other inputs' parts 1e12 times it."""
    given = {"camera": normal(1, 3), "radar": normal(1, 3, seed=1)}
    other = normal(1, 3, seed=2)
    result = decompose(
        lambda camera, radar: F.normalize(camera + radar, p=1, dim=1),
        given,
        "coalitions",
        extras={"camera": [other]},
        keep_maps=True,
    )
    assert replay_deviation(replay(result, given), result) < 1e-14
    assert float(result.extras["camera"][0].abs().max()) < 10.0


@pytest.mark.parametrize("audit", [False, "raise"])
def test_a_network_that_is_not_defined_without_a_sensor(
    audit: Literal["raise", False],
) -> None:
    given = {"camera": normal(1, 3).abs() + 1, "radar": normal(1, 3, seed=1).abs()}
    with pytest.raises(ConservationError, match="some modality's features zero is not finite"):
        decompose(lambda camera, radar: radar / camera, given, "coalitions", audit=audit)


def test_what_needs_maps_of_whole_inputs_is_refused() -> None:
    given = inputs(2, SHAPE)
    result = decompose(Fusing(), given, "coalitions", keep_maps=True)
    with pytest.raises(DecompositionError, match="decompose with identity-ratio"):
        PartiallyLinear(result, ACTIVATIONS)
    with pytest.raises(DecompositionError, match="no stream of their own"):
        Linearised(result).constants("batch_norm")
    assert first_deviation(result, given, 1e-12) is None


def test_coverage_is_that_of_the_same_operations() -> None:
    given = inputs(2, SHAPE)
    assert explain_coverage(Fusing(), given, "coalitions") == explain_coverage(Fusing(), given)


def test_a_head_along_an_edge_is_one_map() -> None:
    """Many partners: the head's kernel is worked out for each edge."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    head = head.double().requires_grad_(False)
    given, partners = inputs(2, (1, 3, 6, 5)), [normal(1, 3, 6, 5, seed=i) for i in range(20)]
    result = decompose(
        lambda camera, radar: head(torch.relu(camera + radar)),
        given,
        "coalitions",
        keep_maps=True,
    )
    assert result.program is not None
    assert find_heads(result.program)
    linear = Linearised(result, inputs=20)
    for actual, x in zip(linear.parts("camera", partners), partners, strict=True):
        close(actual, linear.part("camera", x))
