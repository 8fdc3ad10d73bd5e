"""Activations in place multiply parts where they lie, unless something else still reads them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.decomposition import (
    Decomposition,
    decompose,
    register_activation,
    register_rule,
    unregister_rule,
)
from lmd_cli.decomposition.linearised.replay import replay, replay_deviation
from lmd_cli.decomposition.maps import linear
from tests.support.rule_oracle import normal

SHAPE = (2, 4, 3, 2)
MASK = torch.ones(SHAPE, dtype=torch.bool)

ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Tensor], Tensor]]] = {
    "relu": (lambda x: F.relu(x, inplace=True), F.relu),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2, inplace=True), lambda x: F.leaky_relu(x, 0.2)),
    "silu": (lambda x: F.silu(x, inplace=True), F.silu),
    "sigmoid": (torch.sigmoid_, torch.sigmoid),
    "out": (lambda x: torch.tanh(x, out=x), torch.tanh),
}

#: What may share the parts' memory with what it was made of, though the totals share none.
COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "clone": torch.clone,
    "cat": lambda x: torch.cat([x], 1),
    "stack": lambda x: torch.stack([x])[0],
    "roll": lambda x: x.roll(0, 0),
    "where": lambda x: torch.where(MASK, x, 0.0),
    "index": lambda x: x[[0, 1]],
    "repeat": lambda x: x.repeat(1, 1, 1, 1),
    "expand": lambda x: x[None].expand(1, *SHAPE).clone()[0],
    "pad": lambda x: F.pad(x, (0, 0)),
    "real": lambda x: torch.complex(x, torch.zeros_like(x)).real,
    "type": lambda x: x.to(torch.float64, copy=True),
    "resize": lambda x: F.interpolate(x, scale_factor=1.0),
    "sum": lambda x: x[None].sum(0),
    "dropout": lambda x: F.dropout(x, training=False).clone(),
    "broadcast": lambda x: torch.zeros_like(x) + x[:1, :1],
    "canvas": lambda x: torch.zeros_like(x).copy_(x),
}
VARIANTS = ("identity-ratio", "uniform-uniform-ratio", "identity-ratio-shapley", "coalitions")


def inputs() -> dict[str, Tensor]:
    return {"camera": normal(*SHAPE), "radar": normal(*SHAPE, seed=1)}


def extras() -> dict[str, list[Tensor]]:
    return {"camera": [normal(*SHAPE, seed=2)], "radar": [normal(*SHAPE, seed=3)]}


def run(function: Callable[..., Any], variant: str = "identity-ratio") -> Decomposition:
    return decompose(function, inputs(), variant, extras=extras(), keep_maps=True)


def assert_same(actual: Decomposition, expected: Decomposition) -> None:
    """Totals, parts, what rode along, and what the linearised network gives for other inputs."""
    assert torch.equal(actual.total, expected.total)
    assert torch.equal(actual.bias, expected.bias)
    others = {name: normal(*SHAPE, seed=seed) for seed, name in enumerate(inputs(), 7)}
    replayed, wanted = replay(actual, others), replay(expected, others)
    for name in inputs():
        assert torch.equal(actual.parts[name], expected.parts[name])
        assert torch.equal(actual.extras[name][0], expected.extras[name][0])
        assert torch.equal(replayed[name], wanted[name])
    assert replay_deviation(replay(actual, inputs()), actual) < 1e-13


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("first", ["original", "copy"])
@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_copy_and_its_original_change_apart(
    name: str, copy: str, first: str, variant: str
) -> None:
    in_place, apart = ACTIVATIONS[name]

    def written(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 2.0 + radar + 0.3
        y = COPIES[copy](x)
        in_place(x if first == "original" else y)
        return x * 3.0 + y

    def reference(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 2.0 + radar + 0.3
        y = COPIES[copy](x)
        x, y = (apart(x), y) if first == "original" else (x, apart(y))
        return x * 3.0 + y

    assert_same(run(written, variant), run(reference, variant))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_callers_features_keep_their_values(name: str) -> None:
    given, others = inputs(), extras()
    result = decompose(
        lambda camera, radar: [ACTIVATIONS[name][0](x) for x in (camera, radar)],
        {k: x.clone() for k, x in given.items()},
        extras=others,
        keep_maps=True,
    )
    before = {k: x.clone() for k, x in given.items()}
    replay(result, given)
    assert all(torch.equal(given[k], before[k]) for k in given)
    assert all(torch.equal(others[k][0], extras()[k][0]) for k in given)


@torch.library.custom_op("lmd_tests::levelled", mutates_args=())
def levelled(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True).expand(x.shape).clone()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_parts_whose_elements_share_memory(name: str) -> None:
    """A user's map may give one number for many elements."""

    @register_rule(levelled)
    def rule(call: Any, x: Tensor) -> Any:
        return call.plain(), linear(lambda h: h.mean(-1, keepdim=True).expand(h.shape))

    def written(camera: Tensor, radar: Tensor) -> Tensor:
        x = levelled(camera + radar)
        ACTIVATIONS[name][0](x)
        return x * normal(*SHAPE, seed=5)

    def apart(camera: Tensor, radar: Tensor) -> Tensor:
        return ACTIVATIONS[name][1](levelled(camera + radar)) * normal(*SHAPE, seed=5)

    try:
        assert_same(run(written), run(apart))
    finally:
        unregister_rule(levelled)


@torch.library.custom_op("lmd_tests::twins", mutates_args=())
def twins(x: Tensor) -> tuple[Tensor, Tensor]:
    return 2.0 * x, 2.0 * x


def test_a_users_map_may_keep_what_it_gave() -> None:
    @register_rule(twins)
    def rule(call: Any, x: Tensor) -> Any:
        run = cache(lambda h: 2.0 * h)
        return call.plain(), [linear(run), linear(run)]

    def function(camera: Tensor, radar: Tensor, in_place: bool) -> Tensor:
        a, b = twins(camera + radar + 0.2)
        a = a.relu_() if in_place else a.relu()
        return a + 3.0 * b

    try:
        written, apart = (run(partial(function, in_place=p)) for p in (True, False))
        assert_same(written, apart)
    finally:
        unregister_rule(twins)


def test_a_users_slope_may_be_an_argument() -> None:
    register_activation(torch.square, slope=lambda x: x)

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera + radar + 0.1
        y = torch.square(x)
        return y + x.relu_()

    try:
        result = run(function)
        assert replay_deviation(replay(result, inputs()), result) < 1e-13
    finally:
        unregister_rule(torch.square)


def test_what_autograd_has_kept_stays_as_it_is() -> None:
    def gradients(in_place: bool) -> list[Tensor]:
        given = {name: x.requires_grad_() for name, x in inputs().items()}

        def function(camera: Tensor, radar: Tensor) -> Tensor:
            x = camera * 2.0 + radar + 0.3
            y = torch.tanh(x)
            with torch.no_grad():
                x.relu_() if in_place else x.relu()
            return y

        decompose(function, given, grad=True).parts["camera"].sum().backward()
        return [x.grad for x in given.values() if x.grad is not None]

    for actual, expected in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(actual, expected)


def test_layers_are_kept_as_they_were() -> None:
    """What a layer gave before the next one overwrites it."""
    rectified = nn.ReLU(inplace=True)
    network = nn.Sequential(nn.Conv2d(4, 3, 1), rectified, nn.BatchNorm2d(3), rectified).double()
    apart = nn.Sequential(network[0], nn.ReLU(), network[2], nn.ReLU())

    def layers(m: nn.Module) -> Any:
        def function(camera: Tensor, radar: Tensor) -> Any:
            return m.eval()(camera + radar)

        return decompose(function, inputs(), layers="all", root=m).layers

    kept, expected = layers(network), layers(apart)
    for layer in ("0", "2"):
        for name in inputs():
            assert torch.equal(kept[layer].parts[name], expected[layer].parts[name])


def test_a_program_runs_more_than_once() -> None:
    network = nn.Sequential(nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)).double()
    result = run(lambda camera, radar: network.eval()(camera + radar))
    first, second = (replay(result, inputs()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
