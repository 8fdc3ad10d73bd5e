"""Fusion networks and detectors of other libraries.

Optional, as in :mod:`test_foreign_networks`: transformers (tiny random configurations, nothing is
downloaded).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import LeakError, decompose
from tests.support.foreign_networks import DEVICE, WHY, check, made, normal

pytestmark = pytest.mark.usefixtures("one_algorithm")


def vision() -> Any:
    return pytest.importorskip("transformers", reason=WHY)


class Words(nn.Module):
    """In the place of a table of words: what was given for them."""

    given: Tensor

    def forward(self, words: Tensor) -> Tensor:
        return self.given


def test_bridgetower() -> None:
    """Two encoders, joined layer by layer."""
    lib = vision()
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = dict(size, vocab_size=40, intermediate_size=24, max_position_embeddings=16)
    image = dict(size, patch_size=8, image_size=16)
    network = made(
        lambda: lib.BridgeTowerModel(
            lib.BridgeTowerConfig(text_config=text, vision_config=image, **size)
        )
    )
    words = network.text_model.embeddings.word_embeddings = Words()
    ids = torch.tensor([[0, 7, 8, 9, 2]], device=DEVICE)

    def function(image: Tensor, text: Tensor) -> list[Tensor]:
        words.given = text
        output = network(pixel_values=image, input_ids=ids, attention_mask=torch.ones_like(ids))
        return [output.text_features, output.image_features, output.pooler_output]

    check(network, function, {"image": normal(1, 3, 16, 16), "text": normal(1, 5, 64, seed=1)})


DETR = {
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "decoder_layers": 2, "decoder_n_points": 2,
}  # fmt: skip

PICTURES = {"rgb": normal(1, 3, 64, 64), "depth": normal(1, 1, 64, 64, seed=1)}


def swin(lib: Any, size: int, channels: int, stages: range) -> Any:
    return lib.SwinConfig(
        image_size=size, patch_size=4, num_channels=channels, embed_dim=8, depths=[1] * 4,
        num_heads=[1, 2, 2, 2], window_size=4, out_features=[f"stage{i}" for i in stages],
    )  # fmt: skip


def test_rt_detr() -> None:
    """Its decoder starts from detached queries, and says which of its modules drop the parts."""
    lib = vision()
    stages = [f"stage{i}" for i in (2, 3, 4)]
    backbone = lib.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 12, 16], depths=[1] * 4, num_channels=4,
        out_features=stages, layer_type="basic",
    )  # fmt: skip
    config = lib.RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 12, 16],
        d_model=16, num_queries=10, decoder_in_channels=[16] * 3, num_labels=3, num_denoising=0,
        **DETR,
    )  # fmt: skip
    network = made(lambda: lib.RTDetrForObjectDetection(config))

    def function(rgb: Tensor, depth: Tensor) -> list[Tensor]:
        output = network(pixel_values=torch.cat([rgb, depth], 1))
        return [output.logits, output.pred_boxes]

    attention = "model.decoder.layers.0.encoder_attn"
    with pytest.raises(LeakError, match=attention):
        decompose(function, PICTURES, root=network)
    check(network, function, PICTURES, plain_modules=[attention, "model", "(root)"])


def test_mask2former() -> None:
    lib = vision()
    config = lib.Mask2FormerConfig(
        backbone_config=swin(lib, 64, 4, range(1, 5)), feature_size=32, mask_feature_size=32,
        hidden_dim=32, encoder_feedforward_dim=24, encoder_layers=1, decoder_layers=3,
        num_attention_heads=2, dim_feedforward=24, num_queries=6, num_labels=3,
    )  # fmt: skip
    network = made(lambda: lib.Mask2FormerForUniversalSegmentation(config))

    def function(rgb: Tensor, depth: Tensor) -> list[Tensor]:
        output = network(pixel_values=torch.cat([rgb, depth], 1))
        return [output.class_queries_logits, output.masks_queries_logits]

    check(network, function, PICTURES)


@pytest.mark.usefixtures("double")
def test_grounding_dino() -> None:
    """Text meets image in both encoders and in the logits, which are masked behind the text."""
    lib = vision()
    text = lib.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=32,
    )  # fmt: skip
    config = lib.GroundingDinoConfig(
        backbone_config=swin(lib, 128, 3, range(2, 5)), text_config=text, d_model=32,
        encoder_layers=1, num_queries=8, encoder_n_points=2, max_text_len=16, **DETR,
    )  # fmt: skip
    network = made(lambda: lib.GroundingDinoForObjectDetection(config))
    words = network.model.text_backbone.embeddings.word_embeddings = Words()
    ids = torch.tensor([[1, 7, 9, 12, 8, 11, 12, 2]], device=DEVICE)

    def function(image: Tensor, text: Tensor) -> list[Tensor]:
        words.given = text
        output = network(
            pixel_values=image, input_ids=ids, attention_mask=torch.ones_like(ids),
            token_type_ids=torch.zeros_like(ids),
        )  # fmt: skip
        return [output.logits, output.pred_boxes]

    inputs = {"image": normal(1, 3, 128, 128), "text": normal(1, 8, 16, seed=1)}
    check(network, function, inputs, plain_modules=["model.decoder", "model", "(root)"])


LANGUAGE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}


@pytest.mark.usefixtures("double")
def test_language_model_over_image_and_text_tokens() -> None:
    """LLaMA: RMSNorm by hand, rotary embeddings, grouped queries, SwiGLU."""
    lib = vision()
    config = lib.LlamaConfig(
        vocab_size=30, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
        **LANGUAGE,
    )  # fmt: skip
    network = made(lambda: lib.LlamaModel(config))

    def function(image: Tensor, text: Tensor) -> Tensor:
        tokens = torch.cat([image, text], 1)
        return network(inputs_embeds=tokens, use_cache=False).last_hidden_state

    check(network, function, {"image": normal(2, 4, 16), "text": normal(2, 5, 16, seed=1)})


@pytest.mark.usefixtures("double")
def test_qwen2_vl() -> None:
    lib = vision()
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = dict(
        LANGUAGE, vocab_size=60, num_attention_heads=2, num_key_value_heads=1, rope_parameters=rope,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    image = {
        "depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2,
        "patch_size": 4,
    }  # fmt: skip
    marks = {"image_token_id": 50, "video_token_id": 51, "vision_start_token_id": 52}
    config = lib.Qwen2VLConfig(text_config=text, vision_config=image, **marks)
    network = made(lambda: lib.Qwen2VLForConditionalGeneration(config))
    ids = torch.tensor([[3, 52, 50, 50, 50, 50, 53, 5, 6]], device=DEVICE)
    grid = torch.tensor([[1, 4, 4]], device=DEVICE)
    kinds = (ids == 50).int()
    positions = network.model.get_rope_index(ids, image_grid_thw=grid, mm_token_type_ids=kinds)[0]

    def function(image: Tensor, text: Tensor) -> Tensor:
        seen = network.model.visual(image, grid_thw=grid).pooler_output[None]
        tokens = torch.cat([text[:, :2], seen, text[:, 2:]], 1)
        return network(inputs_embeds=tokens, position_ids=positions, use_cache=False).logits

    check(network, function, {"image": normal(16, 96), "text": normal(1, 5, 16, seed=1)})
