"""Products of two decomposed tensors, softmax and deformable sampling (appendix D.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lmd_cli.decomposition import Variant, decompose
from lmd_cli.decomposition.linearised.replay import replay, replay_deviation
from lmd_cli.decomposition.result import Decomposition
from lmd_cli.decomposition.rules.softmax import SOFTMAX_GUARD

SOFTMAX = ("frozen", "taylor", "secant")


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


INPUTS = {"camera": normal(2, 3, 4, seed=1), "radar": normal(2, 3, 4, seed=2)}

OTHERS = {"camera": normal(2, 3, 4, seed=3), "radar": normal(2, 3, 4, seed=4)}

A, B = 0.7, -0.4  # constants that give the factors a bias part

#: Each product, and the same on arrays.
PRODUCTS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "*": (lambda a, b: a * b, np.multiply),
    "mul": (torch.mul, np.multiply),
    "mul_": (lambda a, b: a.clone().mul_(b), np.multiply),
    "@": (lambda a, b: a @ b.mT, lambda a, b: a @ b.swapaxes(-1, -2)),
    "bmm": (lambda a, b: torch.bmm(a, b.mT), lambda a, b: a @ b.swapaxes(-1, -2)),
    "einsum": (
        lambda a, b: torch.einsum("bic,bjc->bij", a, b),
        lambda a, b: np.einsum("bic,bjc->bij", a, b),
    ),
    "broadcast": (lambda a, b: a[:, :1] * b, lambda a, b: a[:, :1] * b),
}


def factors(camera: Any, radar: Any) -> tuple[Any, Any]:
    """Two factors that both hold both modalities, with constants added."""
    return 2.0 * camera - radar + A, camera + 3.0 * radar + B


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_term_goes_where_appendix_d2_says(name: str) -> None:
    product, expected = PRODUCTS[name]
    result = decompose(
        lambda camera, radar: product(*factors(camera, radar)),
        INPUTS,
        extras={name: [other] for name, other in OTHERS.items()},
        bilinear="interaction",
    )
    zero = np.zeros((2, 3, 4))

    def own(camera: Any, radar: Any) -> Any:
        """One modality's factors without the constants, times themselves and the bias."""
        a, b = factors(camera, radar)
        a, b, bias_a, bias_b = a - A, b - B, zero + A, zero + B
        return expected(a, b) + expected(a, bias_b) + expected(bias_a, b)

    arrays = {name: x.numpy() for name, x in INPUTS.items()}
    camera, radar = own(arrays["camera"], zero), own(zero, arrays["radar"])
    ca, cb = (f - k for f, k in zip(factors(arrays["camera"], zero), (A, B), strict=True))
    ra, rb = (f - k for f, k in zip(factors(zero, arrays["radar"]), (A, B), strict=True))
    np.testing.assert_allclose(result.parts["camera"], camera, atol=1e-13)
    np.testing.assert_allclose(result.parts["radar"], radar, atol=1e-13)
    np.testing.assert_allclose(result.bias, expected(zero + A, zero + B), atol=1e-13)
    np.testing.assert_allclose(result.interaction, expected(ca, rb) + expected(ra, cb), atol=1e-13)
    moved = own(OTHERS["camera"].numpy(), zero)
    np.testing.assert_allclose(result.extras["camera"][0], moved, atol=1e-13)
    assert torch.equal(result.total, product(*factors(INPUTS["camera"], INPUTS["radar"])))


def chain(camera: Tensor, radar: Tensor) -> Tensor:
    first = (camera + A) * (radar + B)
    return (first + camera) * (first - radar)


def test_anything_times_interaction_is_interaction() -> None:
    result = decompose(chain, INPUTS, bilinear="interaction")
    camera, radar = INPUTS["camera"], INPUTS["radar"]
    zero = torch.zeros_like(camera)
    alone = {"camera": chain(camera, zero), "radar": chain(zero, radar)}
    nothing = chain(zero, zero)
    torch.testing.assert_close(result.bias, nothing)
    for name, value in alone.items():
        torch.testing.assert_close(result.parts[name], value - nothing)
    rest = chain(camera, radar) - sum(alone.values()) + nothing
    torch.testing.assert_close(result.interaction, rest)


def test_merging_moves_only_the_interaction() -> None:
    apart = decompose(chain, INPUTS, bilinear="interaction")
    merged = decompose(chain, INPUTS, bilinear="bias")
    for name in INPUTS:
        assert torch.equal(apart.parts[name], merged.parts[name])
    assert torch.equal(apart.interaction, merged.interaction)
    assert torch.equal(merged.bias, apart.bias + apart.interaction)
    assert float(apart.interaction.abs().max()) > 0.1
    with pytest.raises(Exception, match="bilinear must be 'bias' or 'interaction'"):
        decompose(chain, INPUTS, bilinear="other")  # type: ignore[arg-type]


def test_one_modality_with_itself_is_its_own() -> None:
    result = decompose(lambda camera: camera * camera, {"camera": INPUTS["camera"]})
    torch.testing.assert_close(result.parts["camera"], INPUTS["camera"].square())
    assert not result.interaction.any()


#: Brings one logit near zero.
SHIFT = 0.05 - float(2.0 * INPUTS["camera"][0, 0, 0] - INPUTS["radar"][0, 0, 0])


def logits() -> Tensor:
    return 2.0 * INPUTS["camera"] - INPUTS["radar"] + SHIFT


def softmax_of_two(variant: str) -> Decomposition:
    return decompose(
        lambda camera, radar: torch.softmax(2.0 * camera - radar + SHIFT, 1), INPUTS, variant
    )


def test_frozen_softmax_is_a_constant() -> None:
    result = softmax_of_two("identity-ratio-frozen")
    assert not any(part.any() for part in result.parts.values())
    assert torch.equal(result.bias, result.total)


def test_taylor_softmax_is_the_derivative() -> None:
    result = softmax_of_two("identity-ratio-identity-taylor")
    x = logits()

    def derivative(h: Tensor) -> Tensor:
        return torch.func.jvp(lambda v: torch.softmax(v, 1), (x,), (h,))[1]

    torch.testing.assert_close(result.parts["camera"], derivative(2.0 * INPUTS["camera"]))
    torch.testing.assert_close(result.parts["radar"], derivative(-INPUTS["radar"]))
    bias = derivative(torch.full_like(x, SHIFT)) + torch.softmax(x, 1) - derivative(x)
    torch.testing.assert_close(result.bias, bias)


def test_secant_softmax_is_guarded_near_zero() -> None:
    result = softmax_of_two("identity-ratio-secant")
    x = logits().numpy()
    y = result.total.numpy()
    near = np.abs(x) < SOFTMAX_GUARD
    assert near.any()
    assert not near.all()
    slope = np.where(near, y * (1 - y), y / x)
    np.testing.assert_allclose(result.parts["camera"], slope * 2 * INPUTS["camera"].numpy())
    np.testing.assert_allclose(result.bias, slope * SHIFT + np.where(near, y - slope * x, 0))


class Attention(nn.Module):
    """Cross-attention between two modalities, with a norm behind it."""

    def __init__(self, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))
        self.norm = nn.LayerNorm(4)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.double()

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        """(B, n, 4) each to (B, n, 4)."""
        mixed = F.relu(camera + radar)
        scores = self.query(mixed) @ self.key(radar).mT / 2.0
        attended = torch.einsum("bij,bjc->bic", scores.softmax(-1), self.value(mixed))
        return self.norm(attended + camera)


@pytest.mark.parametrize("softmax", SOFTMAX)
@pytest.mark.parametrize("rules", ["identity-ratio", "uniform-identity-sum", "identity-uniform"])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**20))
def test_attention_conserves_and_replays(rules: str, softmax: str, seed: int) -> None:
    network, variant = Attention(seed), Variant(*rules.split("-"), softmax=softmax)
    inputs = {name: normal(2, 3, 4, seed=seed + i) for i, name in enumerate(INPUTS)}
    result = decompose(
        network,
        inputs,
        variant,
        extras={name: [other] for name, other in OTHERS.items()},
        audit=True,
        keep_maps=True,
    )
    assert torch.equal(result.total, network(**inputs))
    scale = max(float(part.abs().max()) for part in result.parts.values())
    bound = 1e-12 if softmax != "secant" else 1e-12 * max(1.0, scale)
    assert max(record.residual for record in result.operations) < bound
    assert replay_deviation(replay(result, inputs), result) < 1e-12
    moved = replay(result, OTHERS)
    for name in INPUTS:
        deviation = (moved[name] - result.extras[name][0]).abs().max()
        assert float(deviation) < 1e-12 * max(1.0, scale)


def test_sampling_places_are_constants() -> None:
    image = normal(1, 2, 5, 5, seed=7)
    places = torch.tanh(normal(1, 3, 3, 2, seed=8))
    inputs = {"camera": image, "radar": places}

    def sample(camera: Tensor, radar: Tensor) -> Tensor:
        return F.grid_sample(camera + 1.0, radar, align_corners=False)

    result = decompose(sample, inputs, keep_maps=True)
    plain = F.grid_sample(image, places, align_corners=False)
    torch.testing.assert_close(result.parts["camera"], plain)
    assert not result.parts["radar"].any()
    assert replay_deviation(replay(result, inputs), result) < 1e-14


def test_layers_table_shows_the_interaction() -> None:
    result = decompose(chain, INPUTS, audit=True)
    first, last = result.operations[0], result.operations[-1]
    assert "interaction" not in first.shares
    assert last.shares["interaction"] > 0
    assert sum(last.shares.values()) == pytest.approx(1.0)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e4)
    return scores.softmax(-1) @ value


@pytest.mark.parametrize("softmax", SOFTMAX)
@pytest.mark.parametrize("masked", ["no", "bool", "causal", "added"])
def test_fused_attention_is_its_operations(masked: str, softmax: str) -> None:
    mask = torch.ones(3, 3, dtype=torch.bool).tril()
    options: dict[str, Any] = {
        "no": {},
        "bool": {"attn_mask": mask},
        "causal": {"is_causal": True},
        "added": {"attn_mask": torch.zeros(3, 3).double().masked_fill(~mask, -torch.inf)},
    }[masked]

    def fused(camera: Tensor, radar: Tensor) -> Tensor:
        query, key = factors(camera, radar)
        return F.scaled_dot_product_attention(query, key, camera + B, **options)

    def single(camera: Tensor, radar: Tensor) -> Tensor:
        query, key = factors(camera, radar)
        return attend(query, key, camera + B, None if masked == "no" else mask)

    variant = f"identity-ratio-identity-{softmax}"
    result = decompose(fused, INPUTS, variant, audit=True, keep_maps=True)
    expected = decompose(single, INPUTS, variant)
    assert torch.equal(result.total, fused(**INPUTS))
    for name in INPUTS:
        torch.testing.assert_close(result.parts[name], expected.parts[name])
    torch.testing.assert_close(result.interaction, expected.interaction)
    assert result.residual < 1e-12
    assert replay_deviation(replay(result, INPUTS), result) < 1e-12


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize("kdim", [None, 6])
def test_multi_head_attention(batch_first: bool, padding: bool, kdim: int | None) -> None:
    network = nn.MultiheadAttention(4, 2, kdim=kdim, vdim=kdim, batch_first=batch_first)
    network = network.double().eval()
    for i, parameter in enumerate(network.parameters()):
        parameter.data = normal(*parameter.shape, seed=20 + i)
    other = normal(2, 3, kdim or 4, seed=9)
    hidden = torch.tensor([[False, True, False], [False, False, True]]) if padding else None
    if not batch_first and hidden is not None:
        hidden = torch.tensor([[False, True]] * 3)

    def function(camera: Tensor, radar: Tensor) -> tuple[Tensor, Tensor]:
        return network(camera + A, radar, radar + B, key_padding_mask=hidden)

    inputs = {"camera": INPUTS["camera"], "radar": other}
    result = decompose(function, inputs, "identity-ratio-identity-taylor", keep_maps=True)
    out, weights = function(**inputs)
    assert torch.equal(result[0].total, out)
    assert torch.equal(result[1].total, weights)
    assert result.residual < 1e-12
    assert replay_deviation(replay(result, inputs), result) < 1e-12
    assert float(result.parts["radar"][0].abs().max()) > 1e-3
    # The camera meets the keys' bias alone, which shifts all logits of a row: nothing changes.
    assert float(result.parts["camera"][0].abs().max()) < 1e-12


def test_grouped_queries_share_keys_and_values() -> None:
    def fused(camera: Tensor, radar: Tensor) -> Tensor:
        query = torch.stack([camera, radar, camera + radar, 0.5 * radar], 1)  # (B, 4, n, E)
        key, value = torch.stack([radar, camera], 1), torch.stack([camera, radar + B], 1)
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=True)

    def single(camera: Tensor, radar: Tensor) -> Tensor:
        keys, values = (radar, radar, camera, camera), (camera, camera, radar + B, radar + B)
        queries = (camera, radar, camera + radar, 0.5 * radar)
        heads = zip(queries, keys, values, strict=True)
        return torch.stack([attend(q, k, v, None) for q, k, v in heads], 1)

    result, apart = decompose(fused, INPUTS, audit="raise"), decompose(single, INPUTS)
    assert torch.equal(result.total, fused(**INPUTS))
    for name in INPUTS:
        torch.testing.assert_close(result.parts[name], apart.parts[name], rtol=0, atol=1e-13)
    torch.testing.assert_close(result.bias, apart.bias, rtol=0, atol=1e-13)


MASK = torch.tensor([[True, False, False], [False, False, False], [True, True, True]])


@pytest.mark.parametrize(
    "replaced",
    [
        lambda p: p.nan_to_num(0.0),
        lambda p: torch.where(p.isnan(), 0.0, p),
        lambda p: p.masked_fill(~MASK.any(-1, keepdim=True), 0.0),
        lambda p: p.index_put_((p.isnan(),), torch.tensor(0.0)),
    ],
)
@pytest.mark.parametrize("variant", ["identity-ratio", "identity-ratio-shapley", "coalitions"])
def test_rows_masked_by_hand_whose_nan_the_network_replaces(
    replaced: Callable[[Tensor], Tensor], variant: str
) -> None:
    x = {"camera": normal(3, 3), "radar": normal(3, 3, seed=1)}

    def weights(camera: Tensor, radar: Tensor) -> Tensor:
        masked = (camera + radar).masked_fill(~MASK, -torch.inf)
        return replaced(masked.softmax(-1)) * 2.0

    def last(camera: Tensor, radar: Tensor) -> Tensor:
        return (camera[2] + radar[2]).softmax(-1) * 2.0

    result, row = (decompose(f, x, variant, audit="raise") for f in (weights, last))
    assert torch.equal(result.total, weights(**x))
    for name, part in result.parts.items():
        assert not part[:2].any()
        assert torch.equal(part[2], row.parts[name])
    assert torch.equal(result.bias[:2], result.total[:2])
