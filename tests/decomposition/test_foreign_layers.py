"""Fusions by graph networks, neural operators and recurrent layers.

Optional, as in :mod:`test_foreign_networks`: PyTorch Geometric and neuraloperator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.support.foreign_networks import DEVICE, WHY, check, made, normal

pytestmark = pytest.mark.usefixtures("one_algorithm")

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
        pooled = [pool(x, EDGES, None, GRAPHS) for pool in kept]
        read = [lib.global_mean_pool(nodes, index) for nodes, _, _, index, *_ in pooled]
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
        at, waypoints = hidden.new_zeros(2, 2), []
        for _ in range(4):
            state = decoder(at, state)
            at = at + head(state[0] if isinstance(state, tuple) else state)
            waypoints.append(at)
        return torch.stack(waypoints, 1)

    check(network, function, SEQUENCES)
