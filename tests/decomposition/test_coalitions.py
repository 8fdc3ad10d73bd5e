"""The variant ``coalitions``: Shapley values of every layer, and secants along frozen edges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as drawn
from hypothesis import settings
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import (
    ConservationError,
    InputError,
    decompose,
    decompose_onward,
    explain_coverage,
    register_rule,
    set_module_rules,
    unregister_rule,
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

RUNS = settings(max_examples=20, deadline=None, derandomize=True)


# -- the oracle: the plain network, sensors arriving one after the other ---------------------------


def with_zeros(given: Mapping[str, Any], present: set[str]) -> dict[str, Any]:
    """The features with those of all other modalities zero."""
    return {
        name: pytree.tree_map(torch.clone if name in present else torch.zeros_like, tree)
        for name, tree in given.items()
    }


def layers_of(function: Any, given: Mapping[str, Any]) -> dict[str, list[Tensor]]:
    """Every module's outputs in a plain run, and the function's own under an empty name."""
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            times = sum(key.split("#")[0] == name for key in seen)
            key = f"{name}#{times + 1}" if times else name
            seen[key] = [leaf.clone() for leaf in pytree.tree_leaves(output)]

        return hook

    modules = function.named_modules() if isinstance(function, nn.Module) else ()
    hooks = [module.register_forward_hook(keep(name)) for name, module in modules if name]
    with torch.no_grad():
        seen[""] = pytree.tree_leaves(function(**given))
    for hook in hooks:
        hook.remove()
    return seen


def shapley_of_layers(
    function: Any, given: Mapping[str, Any]
) -> dict[str, dict[str, list[Tensor]]]:
    """Layer, then modality (and ``bias``), by the mean over all orders of arrival."""
    known: dict[frozenset[str], dict[str, list[Tensor]]] = {}

    def at(present: set[str]) -> dict[str, list[Tensor]]:
        key = frozenset(present)
        if key not in known:
            known[key] = layers_of(function, with_zeros(given, present))
        return known[key]

    orders = list(permutations(given))
    made = {layer: {"bias": outputs} for layer, outputs in at(set()).items()}
    for layer, parts in made.items():
        for name in given:
            rises = [
                [
                    after - before
                    for before, after in zip(
                        at(set(order[: order.index(name)]))[layer],
                        at(set(order[: order.index(name) + 1]))[layer],
                        strict=True,
                    )
                ]
                for order in orders
            ]
            parts[name] = [sum(column) / len(orders) for column in zip(*rises, strict=True)]
    return made


def assert_shapley(found: Any, wanted: Mapping[str, list[Tensor]]) -> None:
    parts = {**found.parts, "bias": found.bias}
    assert parts.keys() == wanted.keys()
    for name, tree in parts.items():
        for a, b in zip(pytree.tree_leaves(tree), wanted[name], strict=True):
            close(a, b)


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
    for found in (whole, whole.layers["deep"]):
        for name in given:
            close(found.extras[name][0], found.parts[name])
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


# -- single operations -----------------------------------------------------------------------------


class Rounded(torch.autograd.Function):
    """x^2 / 2, with a rule of its own that says nothing of secants."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x / 2


W = normal(4, 5, 5, seed=50)
PLACES = torch.tensor([[0, 2], [1, 3]])


def attention(x: Tensor) -> Tensor:
    q, k, v = (x @ w for w in W[:3])
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def hand_written(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 0.1)


def sampled(x: Tensor) -> Tensor:
    places = torch.tanh(x[..., :2] + 0.1)
    return F.grid_sample(x.unsqueeze(1), places.unsqueeze(1), align_corners=False)


def recurrent(x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.LSTM(5, 3, batch_first=True).double().eval().requires_grad_(False)
    output: Tensor = layer(x)[0]
    return output


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "softmax, far apart": lambda x: (300 * x).softmax(-1),
    "log-softmax": lambda x: x.log_softmax(1),
    "logsumexp": lambda x: torch.logsumexp(300 * x, (0, 2)),
    "masked": lambda x: x.masked_fill(torch.eye(5, dtype=torch.bool)[:4], -torch.inf).softmax(-1),
    "attention": attention,
    "product": lambda x: (x @ W[0]) * (x @ W[1]) * x,
    "square": lambda x: x * x,
    "outer product": lambda x: x @ x.transpose(-1, -2),
    "quotient": lambda x: x[..., 1:] / (1 + x[..., :1].exp()),
    "constant over": lambda x: 2.0 / (1 + x * x),
    "reciprocal": lambda x: (3 + x.tanh()).reciprocal(),
    "negative power": lambda x: (3 + x.tanh()) ** -1.5,
    "power": lambda x: x**3 - x.abs() ** 2.5,
    "root": lambda x: (x * x + 0.1).sqrt(),
    "norm by hand": hand_written,
    "layer norm": lambda x: F.layer_norm(x, (4, 5), normal(4, 5, seed=1), normal(4, 5, seed=2)),
    "RMS norm": lambda x: F.rms_norm(x, (5,)),
    "normalize": lambda x: F.normalize(x + 0.1, dim=-1),
    "deviation": lambda x: x / (x.std(-1, keepdim=True) + 1),
    "max-pooling": lambda x: F.max_pool2d(x, 2, padding=1),
    "adaptive max-pooling": lambda x: F.adaptive_max_pool2d(x, 2),
    "maximum along": lambda x: x.max(-1).values + x.amin(1).sum(-1, keepdim=True),
    "cumulative maximum": lambda x: torch.cummax(x, 1).values,
    "maximum": lambda x: torch.maximum(x @ W[0], x.flip(-1)),
    "minimum": lambda x: torch.minimum(x, torch.full((5,), 0.2).double()),
    "clamp": lambda x: x.clamp(x.flip(1) - 0.5, torch.full((5,), 0.5).double()),
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.6),
    "threshold": lambda x: F.threshold(x, 0.25, -1.0),
    "rounded": lambda x: torch.round(3 * x) + torch.floor_divide(x, 0.7),
    "sampling at features": sampled,
    "recurrent": recurrent,
    "written in place": lambda x: torch.zeros_like(x).copy_(x).relu_().mul_(x).add_(1).sigmoid_(),
    "read at places": lambda x: torch.relu(x[:, PLACES]) * x[:, PLACES],
    "complex": lambda x: torch.fft.rfft(x).real.relu(),
}


def mixed(operation: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Three sensors, one of which an activation has gone through already."""
    return lambda camera, radar, lidar: operation(torch.relu(camera + radar) - lidar + 0.2)


def three(seed: int = 0) -> dict[str, Tensor]:
    names = ("camera", "radar", "lidar")
    return {name: normal(2, 4, 5, seed=seed + i) for i, name in enumerate(names)}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_by_its_secants(name: str) -> None:
    """Exact values; every edge's map gives them again, and is affine in a replaced sensor."""
    function, given = mixed(OPERATIONS[name]), three()
    riding = {m: [x, y] for (m, x), y in zip(three(10).items(), three(20).values(), strict=True)}
    result = decompose(function, given, "coalitions", extras=riding, keep_maps=True, audit="raise")
    assert_shapley(result, shapley_of_layers(function, given)[""])
    assert replay_deviation(replay(result, given), result) < 1e-9
    linear = Linearised(result)
    for m, (x, y) in riding.items():
        at_x, at_y, at_given = (linear.part(m, z) for z in (x, y, given[m]))
        close(result.extras[m][0], at_x)
        close(
            linear.part(m, 2 * x - 3 * y + 2 * given[m]), 2 * at_x - 3 * at_y + 2 * at_given, 1e-9
        )


def test_a_rule_without_a_secant_has_a_constant_for_each_edge() -> None:
    @register_rule(Rounded, kind="activation")
    def rule(call: Any, x: Tensor) -> Any:
        from lmd_cli.decomposition.maps import slope

        return call.function(x), slope(x / 2)

    try:
        function, given = mixed(Rounded.apply), three()
        result = decompose(function, given, "coalitions", keep_maps=True)
        assert_shapley(result, shapley_of_layers(function, given)[""])
        assert replay_deviation(replay(result, given), result) < 1e-12
    finally:
        unregister_rule(Rounded)


def test_what_features_decide_stays_as_it_is() -> None:
    """Masks and indices are those of the operating point: the plain network at a coalition would
    choose others."""
    given = three()

    def chosen(camera: Tensor, radar: Tensor, lidar: Tensor) -> Tensor:
        x = camera + radar + lidar
        return (
            x[:, x.sum((0, 2)).argmax()]
            + torch.where(x > 0, x, -x)[:, 0]
            + x.topk(2).values[:, 0, :1]
        )

    result = decompose(chosen, given, "coalitions")
    usual = decompose(chosen, given, "identity-ratio")
    for name in given:
        close(result.parts[name], usual.parts[name])


def test_a_sensor_of_one_branch_has_no_part_elsewhere() -> None:
    given = three()
    result = decompose(
        lambda camera, radar, lidar: (torch.tanh(camera + 0.1), torch.relu(camera * radar), lidar),
        given,
        "coalitions",
    )
    assert not result[0].parts["radar"].any()
    assert not result[1].parts["lidar"].any()
    assert not result.interaction[1].any()
    close(result[1].parts["camera"], result[1].parts["radar"])


# -- what it does not do ---------------------------------------------------------------------------


def test_more_than_five_modalities_are_refused() -> None:
    given = {f"m{i}": normal(1, 2, seed=i) for i in range(6)}
    with pytest.raises(InputError, match=r"6 modalities have 64 coalitions.*192 slopes.*at most 5"):
        decompose(lambda **x: torch.relu(sum(x.values())), given, "coalitions")


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


def test_a_network_that_is_not_defined_without_a_sensor() -> None:
    given = {"camera": normal(1, 3).abs() + 1, "radar": normal(1, 3, seed=1).abs()}
    with pytest.raises(ConservationError, match="some modality's features zero is not finite"):
        decompose(lambda camera, radar: radar / camera, given, "coalitions")


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
    for found, x in zip(linear.parts("camera", partners), partners, strict=True):
        close(found, linear.part("camera", x))
