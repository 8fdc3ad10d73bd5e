"""Parts with weights randomised layer by layer from the output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import decompose
from lmd_cli.evaluation.metrics import pcc
from lmd_cli.evaluation.randomisation import (
    SanityRow,
    layers_from_output,
    mean_rows,
    randomise,
    sanity_rows,
)

FEATURES = {
    "camera": torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)).double(),
    "radar": torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1)).double(),
}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.first, self.norm = nn.Conv2d(6, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True)
        self.last = nn.Conv2d(8, 1, 3, padding=1)
        nn.init.normal_(self.norm.bias)  # or else the bias part is one number everywhere

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return self.last(self.norm(self.first(torch.cat([camera, radar], 1))).relu())


@pytest.fixture
def network() -> Network:
    return Network().double().eval()


def rows_of(network: Network, seed: int = 0) -> list[SanityRow]:
    return list(sanity_rows(network, lambda n: n, FEATURES, seed=seed))


def test_layers_are_those_that_ran_from_the_output_on(network: Network) -> None:
    result = decompose(network, FEATURES)
    assert layers_from_output(network, result) == ["last", "norm", "first"]


def test_the_cascade_written_out(network: Network) -> None:
    """The rows against a copy that is shuffled by hand, layer after layer."""
    actual = {(row.step, row.part): row for row in rows_of(network, seed=5)}
    assert len(actual) == 4 * 4
    copied, generator = Network().double().eval(), torch.Generator().manual_seed(5)
    copied.load_state_dict(network.state_dict())
    trained = decompose(network, FEATURES)
    for step, layer in enumerate(("last", "norm", "first"), start=1):
        for parameter in getattr(copied, layer).parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.data = parameter.data.flatten()[order].view_as(parameter)
        random = decompose(copied, FEATURES)
        for name in FEATURES:
            row = actual[step, name]
            assert row.layer == layer
            assert row.pcc == pytest.approx(pcc(random.parts[name], trained.parts[name]), abs=1e-12)
        assert actual[step, "total"].pcc == pytest.approx(
            pcc(random.total, trained.total), abs=1e-12
        )


def test_the_trained_network_resembles_itself_and_stays(network: Network) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rows = rows_of(network)
    assert all(row.pcc == pytest.approx(1.0) for row in rows if row.step == 0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert rows == rows_of(network)
    assert rows != rows_of(network, seed=1)


def test_a_method_that_ignores_weights_is_found_out() -> None:
    """Where the map does not depend on the weights, the rows stay at 1."""

    class Ignorant(Network):
        def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
            return camera.sum(1, keepdim=True) + radar[:, :1] + 0.0 * super().forward(camera, radar)

    rows = rows_of(Ignorant().double().eval())
    assert max(row.step for row in rows) == 3
    assert all(row.pcc > 0.999 for row in rows if row.part in FEATURES)


def test_shuffling_keeps_the_values() -> None:
    layer = nn.Conv2d(4, 5, 3)
    before = [p.detach().clone() for p in layer.parameters()]
    randomise(layer, torch.Generator().manual_seed(0))
    for old, new in zip(before, layer.parameters(), strict=True):
        assert torch.equal(old.flatten().sort().values, new.detach().flatten().sort().values)
        assert not torch.equal(old, new)


def test_means_over_samples() -> None:
    one, other = SanityRow(1, "last", "camera", 0.5, 0.1), SanityRow(1, "last", "camera", 0.1, 0.3)
    (mean,) = mean_rows([[one], [other]])
    assert (mean.step, mean.layer, mean.part) == (1, "last", "camera")
    assert (mean.pcc, mean.rank) == pytest.approx((0.3, 0.2))


def test_on_the_command_line(tiny_config: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from lmd_cli.cli.app import app

    folder = tmp_path / "out"
    arguments: list[Any] = ["sanity", "-c", tiny_config, "--limit", 1, "--output", folder]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    rows = pd.read_csv(folder / "sanity.csv", keep_default_na=False)
    assert set(rows.part) == {"camera", "radar", "bias", "total"}
    assert rows.layer.iloc[0] == ""
    assert "bev_compressor.0" in rows.layer.iloc[-1]
    assert "segmentation_head.3" in rows.layer[rows.step == 1].iloc[0]
    assert "Random weights" in result.stdout
    assert (folder / "sanity.png").stat().st_size > 10_000
