"""Networks that nobody here wrote, with random weights: bit for bit, conserving at every operation.

MONAI and transformers are optional (``pip install -c constraints.txt -e '.[breadth]'``); their
networks take two image modalities as channels. PyTorch's transformers and the convolutional fuser
run always. On a GPU: ``LMD_TEST_DEVICE=cuda``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import NoRuleError, decompose
from tests.support.foreign_networks import DEVICE, WHY, Function, check, made, normal
from tests.support.second_fuser import SecondFuser

pytestmark = pytest.mark.usefixtures("one_algorithm")


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
    "HighResNet": ({"spatial_dims": 2}, (16, 16)),
    "AttentionUnet": ({"spatial_dims": 2, "channels": (4, 8, 8), "strides": (2, 2)}, (32, 32)),
}  # fmt: skip


@pytest.mark.parametrize("name", MONAI)
def test_monai(name: str) -> None:
    nets = pytest.importorskip("monai.networks.nets", reason=WHY)
    options, shape = MONAI[name]
    network = made(lambda: getattr(nets, name)(in_channels=2, out_channels=1, **options))
    check(network, stacked(network), images(*shape), ("identity-ratio",))


TOKENS = {"camera": normal(2, 3, 8), "radar": normal(2, 4, 8, seed=1)}


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}])
def test_transformer_encoder(options: dict[str, Any]) -> None:
    """Each of its layers is one fused operation."""
    layer = made(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options))
    network = made(lambda: nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return network(torch.cat([camera, radar], 1))

    check(network, function, TOKENS, least=3)


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


def test_padding_that_only_the_fused_kernel_zeroes_is_reported() -> None:
    """Nested tensors are refused; the error names the switch, and with the switch off all is
    well."""
    layer = made(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    network = made(lambda: nn.TransformerEncoder(layer, 1))
    padding = torch.zeros(2, 7, dtype=torch.bool, device=DEVICE)
    padding[1, 5:] = True

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return network(torch.cat([camera, radar], 1), src_key_padding_mask=padding)

    with pytest.raises(NoRuleError, match=r"set_fastpath_enabled\(False\)"):
        decompose(function, TOKENS, root=network)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        check(network, function, TOKENS)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("norm_first", [False, True])
def test_whole_transformer(norm_first: bool) -> None:
    options = {"norm_first": norm_first, "batch_first": True}
    network = made(lambda: nn.Transformer(8, 2, 1, 2, 16, **options))
    mask = nn.Transformer.generate_square_subsequent_mask(4, DEVICE, torch.float64)
    check(network, lambda camera, radar: network(camera, radar, tgt_mask=mask), TOKENS)


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
