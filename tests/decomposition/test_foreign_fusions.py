"""Fusion networks, detectors, graph networks and neural operators of other libraries.

Optional, as in :mod:`test_foreign_networks`: transformers (tiny random configurations, nothing is
downloaded), PyTorch Geometric and neuraloperator; the recurrent ones are PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lmd_cli.decomposition import LeakError, decompose
from lmd_cli.runtime.compute import set_switches
from tests.support.foreign_networks import DEVICE, WHY, check, made, normal


@pytest.fixture(autouse=True)
def one_algorithm() -> None:
    """cuDNN may else add in another order at every call."""
    set_switches(tf32=False)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks that ask for single precision, by name or by default, compute in double."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    for name in ("float", "float32"):
        monkeypatch.setattr(torch, name, torch.float64)
    for name in ("cfloat", "complex64"):
        monkeypatch.setattr(torch, name, torch.complex128)
    yield
    torch.set_default_dtype(usual)


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


# -- PyTorch Geometric ----------------------------------------------------------------------------

EDGES = torch.tensor(
    [[5, 1, 0, 5, 1, 2, 0, 2, 3, 4], [0, 0, 1, 2, 3, 3, 5, 1, 4, 5]], device=DEVICE
)
NODES = {"camera": normal(6, 4), "radar": normal(6, 2, seed=1)}
GRAPHS = torch.tensor([0, 0, 0, 1, 1, 1], device=DEVICE)

CONVOLUTIONS: dict[str, Callable[[Any], nn.Module]] = {
    "GCN": lambda g: g.GCNConv(6, 5),
    "SAGE": lambda g: g.SAGEConv(6, 5),
    "SAGE with max": lambda g: g.SAGEConv(6, 5, aggr="max"),
    "GAT": lambda g: g.GATConv(6, 5, heads=2),
    "GATv2": lambda g: g.GATv2Conv(6, 5, heads=2),
    "Transformer": lambda g: g.TransformerConv(6, 5, heads=2, beta=True),
    "GIN": lambda g: g.GINConv(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))),
    "Cheb": lambda g: g.ChebConv(6, 5, K=3),
    "TAG": lambda g: g.TAGConv(6, 5),
    "GatedGraph": lambda g: g.GatedGraphConv(6, 2),
    "ResGatedGraph": lambda g: g.ResGatedGraphConv(6, 5),
    "Edge": lambda g: g.EdgeConv(nn.Sequential(nn.Linear(12, 5), nn.ReLU())),
    "PNA": lambda g: g.PNAConv(
        6, 5, ["mean", "max", "min", "std"], ["identity", "amplification"],
        torch.tensor([0, 3, 2, 1]),
    ),
    "GEN": lambda g: g.GENConv(6, 5),
    "ARMA": lambda g: g.ARMAConv(6, 5),
    "FiLM": lambda g: g.FiLMConv(6, 5),
    "SuperGAT": lambda g: g.SuperGATConv(6, 5, heads=2),
    "AGNN": lambda g: g.AGNNConv(),
    "APPNP": lambda g: g.APPNP(2, 0.1),
    "MF": lambda g: g.MFConv(6, 5),
    "EG": lambda g: g.EGConv(6, 8),
    "FeaSt": lambda g: g.FeaStConv(6, 5),
    "GPS": lambda g: g.GPSConv(6, g.GINConv(nn.Linear(6, 6)), heads=2),
}  # fmt: skip


def graphs() -> Any:
    return pytest.importorskip("torch_geometric.nn", reason=WHY)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_graph_convolution(name: str) -> None:
    lib = graphs()
    network = made(lambda: CONVOLUTIONS[name](lib))

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return network(torch.cat([camera, radar], 1), EDGES)

    check(network, function, NODES, least=5)


def test_graph_pooling() -> None:
    """Norms and read-outs over graphs; nodes that are kept by their score."""
    lib = graphs()
    norms = [lib.BatchNorm(8), lib.GraphNorm(8), lib.LayerNorm(8)]
    pools = [
        lib.aggr.MeanAggregation(), lib.aggr.MaxAggregation(), lib.aggr.VarAggregation(),
        lib.aggr.MedianAggregation(), lib.aggr.SortAggregation(2),
        lib.aggr.SoftmaxAggregation(learn=True), lib.AttentionalAggregation(nn.Linear(8, 1)),
        lib.Set2Set(8, 2),
    ]  # fmt: skip
    kept = [lib.TopKPooling(8, 0.5), lib.SAGPooling(8, 0.7)]
    network = made(
        lambda: nn.ModuleList([lib.GraphConv(6, 8), *map(nn.ModuleList, (norms, pools, kept))])
    )
    conv, norms, pools, kept = network

    def function(camera: Tensor, radar: Tensor) -> list[Tensor]:
        x = norms[0](conv(torch.cat([camera, radar], 1), EDGES)).relu()
        x = norms[2](norms[1](x, GRAPHS), GRAPHS)
        found = [pool(x, EDGES, None, GRAPHS) for pool in kept]
        read = [lib.global_mean_pool(nodes, index) for nodes, _, _, index, *_ in found]
        return [*read, *(pool(x, GRAPHS) for pool in pools)]

    check(network, function, NODES)


def test_sensors_as_nodes_of_different_kinds() -> None:
    lib = graphs()
    ways = {
        ("cam", "to", "rad"): torch.tensor([[0, 1, 2], [0, 1, 1]], device=DEVICE),
        ("rad", "to", "cam"): torch.tensor([[0, 1, 1], [0, 1, 2]], device=DEVICE),
    }
    first, second = ways
    convs = {
        first: lib.SAGEConv((4, 3), 5),
        second: lib.GATConv((3, 4), 5, add_self_loops=False),
    }
    attention = lib.HGTConv({"cam": 4, "rad": 3}, 8, (["cam", "rad"], list(ways)), heads=2)
    network = made(lambda: nn.ModuleList([lib.HeteroConv(convs), attention]))

    def function(camera: Tensor, radar: Tensor) -> list[Tensor]:
        nodes = {"cam": camera, "rad": radar}
        return [x for layer in network for x in layer(nodes, ways).values()]

    check(network, function, {"camera": normal(3, 4), "radar": normal(2, 3, seed=1)})


# -- neural operators -----------------------------------------------------------------------------

OPERATORS: dict[str, dict[str, Any]] = {
    "FNO": {"n_modes": (4, 4), "n_layers": 2},
    "TFNO": {
        "n_modes": (4, 4), "n_layers": 2, "factorization": "tucker", "implementation": "factorized",
        "rank": 0.5,
    },
    "UNO": {
        "uno_out_channels": [8, 8], "uno_n_modes": [[4, 4]] * 2, "n_layers": 2,
        "uno_scalings": [[0.5, 0.5], [2.0, 2.0]], "channel_mlp_skip": "linear",
    },
}  # fmt: skip


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", OPERATORS)
def test_neural_operator(name: str) -> None:
    lib = pytest.importorskip("neuralop.models", reason=WHY)
    size = {"in_channels": 3, "out_channels": 1, "hidden_channels": 8}
    network = made(lambda: getattr(lib, name)(**size, **OPERATORS[name]))

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return network(torch.cat([camera, radar], 1))

    check(network, function, {"camera": normal(1, 2, 16, 16), "radar": normal(1, 1, 16, 16)})


# -- recurrent fusion -----------------------------------------------------------------------------

SEQUENCES = {"camera": normal(2, 5, 4), "radar": normal(2, 5, 3, seed=1)}
LAYERS = [nn.LSTM, nn.GRU, nn.RNN]


@pytest.mark.parametrize("layer", LAYERS)
def test_late_fusion_of_recurrent_encoders(layer: Any) -> None:
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    network = made(
        lambda: nn.ModuleList([layer(4, 6, **options), layer(3, 6, **options), nn.Linear(24, 5)])
    )
    camera_encoder, radar_encoder, head = network

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        last = [camera_encoder(camera)[0][:, -1], radar_encoder(radar)[0][:, -1]]
        return head(torch.cat(last, 1))

    check(network, function, SEQUENCES, least=5)


@pytest.mark.parametrize("layer", LAYERS)
def test_early_fusion_of_packed_sequences(layer: Any) -> None:
    network = made(lambda: layer(7, 6, batch_first=True))
    lengths = torch.tensor([5, 3])

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        joint = torch.cat([camera, radar], 2)
        packed = pack_padded_sequence(joint, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(network(packed)[0], batch_first=True)[0]

    check(network, function, SEQUENCES, least=4)


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell])
def test_waypoints_that_are_decoded_step_by_step(cell: Any) -> None:
    """As TransFuser's: the last waypoint is the decoder's next input."""
    network = made(lambda: nn.ModuleList([nn.Linear(7, 6), cell(2, 6), nn.Linear(6, 2)]))
    join, decoder, head = network

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        hidden = join(torch.cat([camera, radar], 2).mean(1))
        state = (hidden, torch.zeros_like(hidden)) if cell is nn.LSTMCell else hidden
        at, found = hidden.new_zeros(2, 2), []
        for _ in range(4):
            state = decoder(at, state)
            at = at + head(state[0] if isinstance(state, tuple) else state)
            found.append(at)
        return torch.stack(found, 1)

    check(network, function, SEQUENCES)
