"""Recurrent layers and cells, fused and not: made of linear layers, gates and products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import Decomposition, decompose
from lmd_cli.decomposition.linearised.replay import replay, replay_deviation
from tests.support.rule_oracle import normal

STEPS, BATCH, WIDTH, HIDDEN = 7, 3, 4, 5
Made = tuple[Callable[..., Any], dict[str, Tensor]]


def trained(layer: nn.Module, scale: float = 1.0) -> nn.Module:
    """Weights of a size that a trained network has, the same each time."""
    layer = layer.double().eval()
    for i, parameter in enumerate(layer.parameters()):
        parameter.data = 0.5 * scale * normal(*parameter.shape, seed=60 + i)
    return layer


def sequences(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {
        name: normal(STEPS, BATCH, WIDTH, seed=80 + i).to(dtype)
        for i, name in enumerate(("camera", "radar"))
    }


def padded(layer: nn.Module) -> Made:
    return lambda camera, radar: layer(camera + radar)[0], sequences()


def states(layer: nn.Module) -> Made:
    return lambda camera, radar: layer(camera - radar)[1], sequences()


def packed(layer: nn.Module) -> Made:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        lengths = torch.tensor([3, STEPS, 5])
        x = nn.utils.rnn.pack_padded_sequence(camera + radar, lengths, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(layer(x)[0])[0]

    return function, sequences()


def cell(layer: nn.Module) -> Made:
    return lambda camera, radar: layer(camera[0] + radar[0]), sequences()


def single(layer: nn.Module) -> Made:
    """In float32 an LSTM runs as one fused operator for each direction of a layer."""
    return lambda camera, radar: layer.float()(camera + radar)[0], sequences(torch.float32)


def layer(kind: Any, **options: Any) -> nn.Module:
    return trained(kind(WIDTH, HIDDEN, **options))


LAYERS: dict[str, Callable[[], Made]] = {
    **{
        f"{kind.__name__} {way.__name__} {' '.join(options)}": (
            lambda kind=kind, way=way, options=options: way(layer(kind, **options))
        )
        for kind in (nn.LSTM, nn.GRU, nn.RNN)
        for way in (padded, states, packed, single)
        for options in ({}, {"num_layers": 2, "bidirectional": True}, {"bias": False})
    },
    "RNN with ReLU": lambda: padded(layer(nn.RNN, nonlinearity="relu")),
    "LSTM with projections": lambda: padded(layer(nn.LSTM, proj_size=3)),
    "LSTM cell": lambda: cell(layer(nn.LSTMCell)),
    "GRU cell": lambda: cell(layer(nn.GRUCell)),
    "RNN cell": lambda: cell(layer(nn.RNNCell)),
}


def decomposed(made: Made, variant: str = "identity-ratio") -> Decomposition:
    function, inputs = made
    result = decompose(function, inputs, variant, audit=True, keep_maps=True)
    with torch.no_grad():
        plain = function(**inputs)
    for value, wanted in zip(leaves(result.total), leaves(plain), strict=True):
        assert torch.equal(value, wanted)
    double = leaves(plain)[0].dtype == torch.float64
    assert result.residual < (1e-12 if double else 1e-5)
    assert replay_deviation(replay(result, inputs), result) < (1e-12 if double else 1e-5)
    return result


def leaves(tree: Any) -> list[Tensor]:
    return torch.utils._pytree.tree_leaves(tree)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_conserve_and_replay(name: str) -> None:
    decomposed(LAYERS[name]())


def test_a_cell_without_gates_follows_the_variant() -> None:
    """Eq. 9 for the tanh of a plain cell: it multiplies nothing."""
    rnn: Any = layer(nn.RNNCell)
    result = decompose(lambda camera, radar: rnn(camera[0] + radar[0]), sequences())
    inputs = {name: x[0] for name, x in sequences().items()}
    before = rnn.bias_ih + rnn.bias_hh + sum(x @ rnn.weight_ih.T for x in inputs.values())
    for name, x in inputs.items():
        wanted = (x @ rnn.weight_ih.T) * torch.tanh(before) / before
        torch.testing.assert_close(result.parts[name], wanted.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["identity-ratio", "identity-ratio-identity-taylor"])
def test_gates_are_constants_or_their_derivative(variant: str) -> None:
    """One step of a GRU from a hidden state of the radar's: h' = n + z (h - n)."""
    cell: Any = layer(nn.GRUCell)
    x, h = normal(BATCH, WIDTH, seed=1), normal(BATCH, HIDDEN, seed=2)
    result = decompose(
        lambda camera, radar: cell(camera, radar), {"camera": x, "radar": h}, variant
    )
    i = x @ cell.weight_ih.T + cell.bias_ih
    k = h @ cell.weight_hh.T + cell.bias_hh
    reset, update = (
        torch.sigmoid(a + b) for a, b in zip(i.chunk(3, 1)[:2], k.chunk(3, 1)[:2], strict=True)
    )
    before = i.chunk(3, 1)[2] + reset * k.chunk(3, 1)[2]
    camera = (x @ cell.weight_ih.T).chunk(3, 1)[2] * torch.tanh(before) / before
    frozen = (camera - update * camera).detach()
    same = torch.allclose(result.parts["camera"], frozen, rtol=1e-12, atol=1e-12)
    assert same == (variant == "identity-ratio")
    assert result.residual < 1e-12


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_parts_stay_bounded_over_many_steps(kind: Any, scale: float) -> None:
    """Gates are constants of the operating point: products with their parts would grow."""
    rnn = trained(kind(WIDTH, HIDDEN), scale)
    inputs = {n: normal(60, 2, WIDTH, seed=90 + i) for i, n in enumerate(("camera", "radar"))}
    result = decompose(lambda camera, radar: rnn(camera + radar)[0], inputs)
    assert result.residual < 1e-12
    parts = [*result.parts.values(), result.own_bias, result.interaction]
    assert all(torch.isfinite(p).all() for p in parts)
    assert max(float(p.abs().max()) for p in parts) < 100.0


def test_fused_and_single_operations_agree() -> None:
    rnn = layer(nn.LSTM, bidirectional=True)
    whole = decompose(*padded(rnn))
    fused = decompose(*single(rnn))
    for name, part in whole.parts.items():
        torch.testing.assert_close(fused.parts[name].double(), part, rtol=1e-4, atol=1e-5)
