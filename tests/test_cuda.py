"""On a GPU: what the CPU tests say, where there is one. Skipped elsewhere."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.config.loading import load_config
from lmd_cli.decomposition import NoRuleError, decompose
from lmd_cli.decomposition.linearised.replay import replay, replay_deviation
from lmd_cli.runtime.cuda_graphs import Graph
from lmd_cli.workflows.evaluate import evaluate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Fusion(nn.Module):
    """Convolutions, norms, attention, pooling and resampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.token_norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up = nn.ConvTranspose2d(8, 1, 2, 2)

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(torch.cat([camera, radar], 1)))), 2)
        t = self.token_norm(x.flatten(2).mT)
        t = self.mix(t + self.attention(t, t, t)[0])
        x = x * torch.sigmoid(t.mT.unflatten(2, x.shape[2:]))
        return F.interpolate(self.up(x), scale_factor=2, mode="bilinear")


@pytest.fixture
def network() -> Fusion:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return Fusion().eval().cuda()


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    """A batch of three."""
    return {name: torch.randn(3, 3, 16, 16, device="cuda") for name in ("camera", "radar")}


@pytest.mark.parametrize(
    "variant",
    [
        *("identity-ratio", "uniform-identity-sum", "identity-ratio-taylor-taylor"),
        *("identity-ratio-shapley", "identity-ratio-reveal", "coalitions"),
    ],
)
def test_total_parts_extras_and_replay(
    network: Fusion, inputs: dict[str, Tensor], variant: str
) -> None:
    extras = {"radar": [torch.randn_like(inputs["radar"])]}
    with torch.no_grad():
        plain = network(**inputs)
    result = decompose(
        network, inputs, variant, extras=extras, audit="raise", layers="all", keep_maps=True
    )
    assert torch.equal(result.total, plain)
    assert result.residual < 1e-5
    assert replay_deviation(replay(result, inputs), result) < 1e-4
    for part in (*result.parts.values(), result.bias, result.extras["radar"][0]):
        assert part.is_cuda
    alone = decompose(network, {name: x[1:2] for name, x in inputs.items()}, variant)
    torch.testing.assert_close(alone.parts["radar"], result.parts["radar"][1:2], rtol=0, atol=1e-4)


def test_float64_is_what_the_cpu_gives(network: Fusion, inputs: dict[str, Tensor]) -> None:
    wide = {name: x.double() for name, x in inputs.items()}
    there = decompose(network.double(), wide, audit="raise")
    here = decompose(network.cpu(), {name: x.cpu() for name, x in wide.items()})
    assert there.residual < 1e-12
    for name in wide:
        torch.testing.assert_close(there.parts[name].cpu(), here.parts[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_the_plain_autocast_call(
    network: Fusion, inputs: dict[str, Tensor], dtype: torch.dtype
) -> None:
    with torch.autocast("cuda", dtype=dtype), torch.no_grad():
        plain = network(**inputs)
        result = decompose(network, inputs, audit="raise")
    assert torch.equal(result.total, plain)
    assert result.parts["camera"].dtype == plain.dtype


def test_moving_between_devices_moves_the_parts(inputs: dict[str, Tensor]) -> None:
    result = decompose(lambda camera, radar: (camera + radar).cpu().cuda() * 2.0, inputs)
    assert torch.equal(result.parts["camera"], 2.0 * inputs["camera"])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "pairs.csv").open() as file:
        return list(csv.DictReader(file))


def test_an_evaluation_with_and_without_half_precision(tiny_config: Path, tmp_path: Path) -> None:
    actual = {}
    settings = {
        "cpu": ["device=cpu"],
        "gpu": ["device=cuda"],
        "half": ["device=cuda", "compute.precision=bf16"],
    }
    for name, given in settings.items():
        evaluate(load_config(str(tiny_config), given), tmp_path / name, limit=1)
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["conservation_residual"] < 1e-4
        assert record["replay_deviation"] < 1e-3
        actual[name] = rows(tmp_path / name)
    assert json.loads((tmp_path / "half" / "run.json").read_text())["compute"]["channels_last"]
    assert len({len(actual[name]) for name in settings}) == 1
    for mine, theirs in zip(actual["gpu"], actual["cpu"], strict=True):
        assert float(mine["pcc"] or 0) == pytest.approx(float(theirs["pcc"] or 0), abs=1e-2)


@pytest.mark.filterwarnings("error:.*without a CUDA graph")
@pytest.mark.parametrize(
    ("precision", "variants"),
    [
        ("float32", "identity-ratio,uniform-identity"),
        ("bf16", "identity-ratio,uniform-identity"),
        ("float32", "identity-ratio-shapley,identity-ratio-reveal,identity-ratio-rescale"),
        ("float32", "coalitions"),
    ],
)
def test_a_replayed_graph_writes_the_same_rows(
    tiny_config: Path, tmp_path: Path, precision: str, variants: str
) -> None:
    for graphs in ("true", "false"):
        settings = ["device=cuda", f"compute.precision={precision}", f"variants=[{variants}]"]
        config = load_config(str(tiny_config), [*settings, f"compute.cuda_graphs={graphs}"])
        evaluate(config, tmp_path / graphs, limit=6)
        assert (tmp_path / graphs / "samples.csv").read_text().count(",ok,") == 6
    for name in ("pairs.csv", "samples.csv", "metrics.csv"):
        assert (tmp_path / "true" / name).read_bytes() == (tmp_path / "false" / name).read_bytes()


def test_what_waits_for_a_value_runs_as_it_is() -> None:
    def waits(x: Tensor) -> Tensor:
        return x * 2 if bool((x > 0).any()) else x

    graph = Graph(waits, "the function")
    x = torch.ones(3, device="cuda")
    with pytest.warns(UserWarning, match="the function runs without a CUDA graph"):
        assert torch.equal(graph(x), 2 * x)
    assert graph.refused
    assert torch.equal(graph(-x), -x)


def test_a_graph_is_replayed_for_each_shape() -> None:
    calls = []
    graph = Graph(lambda x: calls.append(1) or x["a"] + 1, "a sum")
    for size in (3, 3, 5, 3, 5, 7):
        x = torch.randn(size, device="cuda")
        assert torch.equal(graph({"a": x}), x + 1)
    assert len(calls) == 2 * 3 + 1  # two warm-ups and a recording of two shapes, then one as it is
    assert graph({"a": torch.zeros(2)}).device.type == "cpu"


def test_a_triton_kernel_with_a_rule_of_its_own() -> None:
    """A kernel in a custom autograd function, as fused layers are written."""
    triton = pytest.importorskip("triton")
    from lmd_cli import register_rule
    from tests.support.triton_kernel import Doubled, double

    x = {name: torch.randn(1000, device="cuda") for name in ("camera", "radar")}
    assert triton is not None
    assert torch.equal(double(x["camera"]), 2 * x["camera"])

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return Doubled.apply(camera + F.relu(radar)) + 1.0  # type: ignore[no-any-return]

    with pytest.raises(NoRuleError, match="Doubled"):
        decompose(function, x)

    @register_rule(Doubled, kind="linear")
    def doubled(session, func, h):  # type: ignore[no-untyped-def]
        return session.make(double(h.total), torch.stack([double(p) for p in h.parts]), h.rows)

    result = decompose(function, x, audit="raise", keep_maps=True)
    assert torch.equal(result.total, function(**x))
    assert torch.equal(result.parts["camera"], 2 * x["camera"])
    assert replay_deviation(replay(result, x), result) == 0.0


def test_a_recording_that_fails_leaves_torch_as_it_was() -> None:
    """What no warm-up shows: the function waits at the recording alone."""
    calls = []

    def waits_later(x: Tensor) -> Tensor:
        calls.append(1)
        return x * 2 if len(calls) < 3 or bool((x > 0).any()) else x

    graph = Graph(waits_later, "the function")
    x = torch.ones(3, device="cuda")
    with pytest.warns(UserWarning, match="the function runs without a CUDA graph"):
        assert torch.equal(graph(x), 2 * x)
    assert torch.randn(3, device="cuda").isfinite().all()
    again = Graph(lambda t: t + 1, "a sum")
    assert torch.equal(again(x), x + 1)
    assert again.refused is None
