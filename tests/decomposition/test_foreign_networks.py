"""Networks that nobody here wrote, with random weights: bit for bit, conserving at every operation.

MONAI and transformers are optional (``pip install -c constraints.txt -e '.[breadth]'``); their
networks take two image modalities as channels. PyTorch's transformers and the convolutional fuser
run always. On a GPU: ``LMD_TEST_DEVICE=cuda``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rule_oracle import assert_replayed
from rule_oracle import normal as normal_on_the_cpu
from second_fuser import SecondFuser
from torch import Tensor, nn

from lmd_cli.compute import set_switches
from lmd_cli.decomposition import LeakError, decompose, explain_coverage

WHY = "optional: pip install -c constraints.txt -e '.[breadth]'"
Function = Callable[..., Tensor]
DEVICE = torch.device(os.environ.get("LMD_TEST_DEVICE", "cpu"))


@pytest.fixture(autouse=True)
def one_algorithm() -> None:
    """cuDNN may else add in another order at every call."""
    set_switches(tf32=False)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal noise on the device."""
    return normal_on_the_cpu(*shape, seed=seed).to(DEVICE)


def made(build: Callable[[], nn.Module]) -> nn.Module:
    """A network in float64 and evaluation mode, always with the same random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build().double().eval()
        with torch.no_grad():  # norms whose affine maps are not the trivial ones
            for parameter in network.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return network.to(DEVICE)


def check(
    network: nn.Module,
    function: Function,
    inputs: dict[str, Tensor],
    variants: tuple[str, ...] = ("identity-ratio", "uniform-identity-sum-taylor"),
    **options: Any,
) -> None:
    """Total, conservation at every operation, a replay of eq. 14, and no gap in the coverage."""
    with torch.no_grad():
        plain = function(**inputs)
    coverage = explain_coverage(function, inputs, root=network, **options)
    assert coverage.gaps == ()
    for variant in variants:
        result = decompose(
            function, inputs, variant, root=network, audit="raise", keep_frozen=True, **options
        )
        assert torch.equal(result.total, plain)
        assert max(record.residual for record in result.operations) < 1e-10
        assert len(result.operations) >= 10
        assert all(float(part.abs().max()) > 0 for part in result.parts.values())
        assert torch.isfinite(result.bias).all()
    assert_replayed(function, inputs, result)


def images(*shape: int, channels: tuple[int, int] = (1, 1)) -> dict[str, Tensor]:
    """Two modalities as images (1, C, ...)."""
    names = zip(("ct", "pet"), channels, strict=True)
    return {name: normal(1, c, *shape, seed=i) for i, (name, c) in enumerate(names)}


def stacked(network: nn.Module, pick: Callable[[Any], Tensor] = lambda out: out) -> Function:
    """The network on both modalities as channels."""
    return lambda ct, pet: pick(network(torch.cat([ct, pet], 1)))


MONAI: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "UNet": (
        {"spatial_dims": 3, "channels": (4, 8, 8), "strides": (2, 2), "num_res_units": 1},
        (8, 8, 8),
    ),
    "SegResNet": ({"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)}, (8, 8, 8)),
    "UNETR": (
        {"img_size": (32, 32), "feature_size": 4, "hidden_size": 24, "mlp_dim": 24, "num_heads": 2,
         "spatial_dims": 2},
        (32, 32),
    ),
    "SwinUNETR": (
        {"feature_size": 12, "depths": (2, 1, 1, 1), "num_heads": (2, 2, 2, 2), "spatial_dims": 2},
        (64, 64),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MONAI)
def test_monai(name: str) -> None:
    nets = pytest.importorskip("monai.networks.nets", reason=WHY)
    options, shape = MONAI[name]
    network = made(lambda: getattr(nets, name)(in_channels=2, out_channels=1, **options))
    check(network, stacked(network), images(*shape), ("identity-ratio",))


TOKENS = {"camera": normal(2, 3, 8), "radar": normal(2, 4, 8, seed=1)}


def check_that_the_fused_kernel_is_refused(network: nn.Module, function: Function) -> None:
    """The error names the switch, and with the switch off all is well."""
    with pytest.raises(LeakError, match=r"set_fastpath_enabled\(False\)"):
        decompose(function, TOKENS, root=network)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        check(network, function, TOKENS)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}])
def test_transformer_encoder(options: dict[str, Any]) -> None:
    layer = made(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options))
    network = made(lambda: nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return network(torch.cat([camera, radar], 1))

    if DEVICE.type == "cpu" or "activation" not in options:
        check(network, function, TOKENS)
        return
    # The fused kernel for GPUs approximates GELU: told, not passed over.
    check_that_the_fused_kernel_is_refused(network, function)


def test_transformer_encoder_with_a_causal_mask() -> None:
    network = made(lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2))
    mask = nn.Transformer.generate_square_subsequent_mask(7, DEVICE, torch.float64)

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        tokens = torch.cat([camera, radar], 1).transpose(0, 1)
        return network(tokens, mask=mask, is_causal=True)

    check(network, function, TOKENS)


def test_transformer_decoder() -> None:
    layer = made(lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True))
    network = made(lambda: nn.TransformerDecoder(layer, 2))
    check(network, lambda camera, radar: network(camera, radar), TOKENS)


def test_the_fused_kernel_is_the_one_that_is_compared() -> None:
    """The plain encoder takes it, and it rounds otherwise than the single operations."""
    layer = made(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    tokens = torch.cat(list(TOKENS.values()), 1)
    with torch.no_grad():
        fused = layer(tokens)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            single = layer(tokens)
            result = decompose(lambda camera, radar: layer(torch.cat([camera, radar], 1)), TOKENS)
            assert torch.equal(result.total, single)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert not torch.equal(fused, single)
    result = decompose(lambda camera, radar: layer(torch.cat([camera, radar], 1)), TOKENS)
    assert torch.equal(result.total, fused)
    assert result.residual < 1e-14


def test_padding_that_only_the_fused_kernel_zeroes_is_told() -> None:
    layer = made(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    network = made(lambda: nn.TransformerEncoder(layer, 1))
    padding = torch.zeros(2, 7, dtype=torch.bool, device=DEVICE)
    padding[1, 5:] = True

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return network(torch.cat([camera, radar], 1), src_key_padding_mask=padding)

    check_that_the_fused_kernel_is_refused(network, function)


def test_bevfusion_style_fuser_with_a_second_decoder() -> None:
    network = made(lambda: SecondFuser(camera=5, lidar=6))
    inputs = {"camera": normal(1, 5, 16, 16), "lidar": normal(1, 6, 16, 16, seed=1)}
    check(network, lambda camera, lidar: network(camera, lidar)["heatmap"], inputs)
    result = decompose(network, inputs, audit="raise")
    assert set(result) == {"heatmap", "reg", "height"}


def vision() -> Any:
    return pytest.importorskip("transformers", reason=WHY)


SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}


def test_vision_transformer() -> None:
    lib = vision()
    config = lib.ViTConfig(
        **SMALL, num_hidden_layers=2, image_size=16, patch_size=8, num_channels=4
    )
    network = made(lambda: lib.ViTModel(config))
    check(network, stacked(network, lambda o: o.last_hidden_state), images(16, 16, channels=(3, 1)))


def test_segformer() -> None:
    lib = vision()
    config = lib.SegformerConfig(
        num_channels=4, hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
    )  # fmt: skip
    network = made(lambda: lib.SegformerForSemanticSegmentation(config))
    function = stacked(network, lambda output: output.logits)
    check(network, function, images(64, 64, channels=(3, 1)), ("identity-ratio",))


def test_convnext_with_its_own_norms() -> None:
    """ConvNeXt V2's global response norm divides by a mean of norms."""
    lib = vision()
    config = lib.ConvNextV2Config(num_channels=4, hidden_sizes=[8] * 4, depths=[1] * 4)
    network = made(lambda: lib.ConvNextV2Model(config))
    function = stacked(network, lambda output: output.last_hidden_state)
    check(network, function, images(64, 64, channels=(3, 1)))


def test_image_text_similarity() -> None:
    """CLIP: two encoders, normalised embeddings, and a product of the two modalities."""
    lib = vision()
    text = dict(SMALL, num_hidden_layers=1, vocab_size=50, max_position_embeddings=8)
    image = dict(SMALL, num_hidden_layers=1, image_size=16, patch_size=8)
    config = lib.CLIPConfig(text_config=text, vision_config=image, projection_dim=8)
    network = made(lambda: lib.CLIPModel(config))

    def function(image: Tensor, text: Tensor) -> Tensor:
        seen = network.vision_model(pixel_values=image).pooler_output
        read = network.text_model.encoder(inputs_embeds=text).last_hidden_state[:, -1]
        seen, read = network.visual_projection(seen), network.text_projection(read)
        seen = seen / seen.norm(p=2, dim=-1, keepdim=True)
        read = read / read.norm(p=2, dim=-1, keepdim=True)
        return read @ seen.t() * network.logit_scale.exp()

    inputs = {"image": normal(2, 3, 16, 16), "text": normal(2, 5, 16, seed=1)}
    check(network, function, inputs)


def test_language_model_over_image_and_text_tokens() -> None:
    """LLaMA: RMSNorm by hand, rotary embeddings, grouped queries, SwiGLU."""
    lib = vision()
    config = lib.LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    network = made(lambda: lib.LlamaModel(config))

    def function(image: Tensor, text: Tensor) -> Tensor:
        tokens = torch.cat([image, text], 1)
        return network(inputs_embeds=tokens, use_cache=False).last_hidden_state

    # Its RMSNorm computes in float32 whatever the weights are, so that is what conserves here.
    network.float()
    inputs = {"image": normal(2, 4, 16).float(), "text": normal(2, 5, 16, seed=1).float()}
    with torch.no_grad():
        plain = function(**inputs)
    options: dict[str, Any] = {"root": network, "plain_modules": ["rotary_emb"]}
    assert explain_coverage(function, inputs, **options).gaps == ()
    result = decompose(function, inputs, audit="raise", **options)
    assert torch.equal(result.total, plain)
    assert max(record.residual for record in result.operations) < 1e-5
    with pytest.raises(LeakError, match=r"'rotary_emb'.*plain_modules"):
        decompose(function, inputs, root=network)
