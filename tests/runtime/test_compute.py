"""Precision, memory format and batch sizes: what ``auto`` means, and what changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lmd_cli.assembly import forward
from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.forward import encode_features, fused_parts
from lmd_cli.config.compute import ComputeConfig, parse_size
from lmd_cli.config.loading import load_config
from lmd_cli.data import collate
from lmd_cli.decomposition import Variant, api, inputs
from lmd_cli.decomposition.tracing import calls
from lmd_cli.errors import ConfigError, ResultsError
from lmd_cli.evaluation.cost import Meter
from lmd_cli.evaluation.measure import RecordedNumbers, Task, as_tensor
from lmd_cli.evaluation.variants import VariantPredictions
from lmd_cli.evaluation.walk import Encoder, Encoding, Skipped, Visit
from lmd_cli.geometry import Grid
from lmd_cli.networks import SimpleBEV
from lmd_cli.runtime.compute import (
    CPU_CHUNKS,
    FREE_SHARE,
    PASS_FACTOR,
    PASS_SHARE,
    Chunks,
    Compute,
    resolve_compute,
)
from lmd_cli.runtime.cuda_graphs import Graph
from lmd_cli.workflows.evaluate import evaluate
from tests.support.tiny_settings import simplebev_sizes

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GB", 20 * 10**9), ("1.5 GiB", 3 * 2**29), ("512MiB", 2**29), ("7MB", 7_000_000)],
)
def test_sizes(text: str, size: int):
    """Sizes of memory as a config writes them, in bytes."""
    assert parse_size(text) == size


# -- what auto stands for -----------------------------------------------------------------


def test_auto_on_a_cpu_suits_the_allocator_and_a_budget_is_a_ceiling():
    assert resolve_compute(ComputeConfig(), CPU) == Compute(chunks=CPU_CHUNKS)
    roomy = resolve_compute(ComputeConfig(memory="100GB"), CPU).chunks
    assert roomy == CPU_CHUNKS
    tight = resolve_compute(ComputeConfig(memory="160MB"), CPU).chunks
    assert tight == Chunks(10_000_000, 10_000_000, 10_000_000)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 80 GB, half of it taken."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (40 * 10**9, 80 * 10**9))


@pytest.mark.usefixtures("gpu")
def test_auto_on_a_gpu_takes_most_of_what_is_free():
    actual = resolve_compute(ComputeConfig(), GPU)
    most = int(40e9 * FREE_SHARE * PASS_SHARE) // PASS_FACTOR
    assert actual.chunks == Chunks(most, most, most)
    assert not actual.channels_last
    assert resolve_compute(ComputeConfig(precision="bf16"), GPU).channels_last
    assert resolve_compute(ComputeConfig(tf32=True), GPU).channels_last
    assert not resolve_compute(ComputeConfig(tf32=True), CPU).channels_last
    asked = resolve_compute(ComputeConfig(memory="16GB"), GPU).chunks
    assert asked == Chunks(10**9, 10**9, 10**9)


@pytest.mark.usefixtures("gpu")
def test_a_run_goes_on_with_the_batches_it_began_with(monkeypatch: pytest.MonkeyPatch):
    before = resolve_compute(ComputeConfig(), GPU)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**9, 80 * 10**9))
    record = json.loads(json.dumps({"compute": before.record()}))
    assert resolve_compute(ComputeConfig(), GPU, record) == before
    assert resolve_compute(ComputeConfig(), GPU) != before
    assert resolve_compute(ComputeConfig(), GPU, {"device": "cuda"}) != before  # an older record


@pytest.mark.usefixtures("gpu")
def test_more_than_the_gpu_has_is_refused():
    with pytest.raises(ConfigError, match=r"compute.memory is 90GB: cuda:0 has 80.0GB in all"):
        resolve_compute(ComputeConfig(memory="90GB"), GPU)


@pytest.fixture
def switches() -> Iterator[None]:
    """Puts torch's switches back."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    yield
    for place, value in zip(places, before, strict=True):
        place.allow_tf32 = value  # type: ignore[attr-defined]


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_as_the_config_says(tf32: bool):
    Compute(tf32=tf32).apply(nn.Identity())  # type: ignore[arg-type]
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert torch.backends.cuda.matmul.allow_tf32 is tf32


def test_channels_last_needs_to_know_the_encoders():
    with pytest.raises(ConfigError, match=r"Identity does not say which of its modules are enc"):
        Compute(channels_last=True).apply(nn.Identity())  # type: ignore[arg-type]


@pytest.mark.usefixtures("gpu")
def test_cuda_graphs_are_for_networks_that_allow_them():
    network = SimpleBEV(grid=Grid((8, 4, 8)), widths=simplebev_sizes(latent=8))
    assert resolve_compute(ComputeConfig(), GPU, None, network).cuda_graphs
    assert not resolve_compute(ComputeConfig(), CPU, None, network).cuda_graphs
    assert not resolve_compute(ComputeConfig(cuda_graphs=False), GPU, None, network).cuda_graphs
    assert not resolve_compute(ComputeConfig(), GPU, None, nn.Identity()).cuda_graphs
    assert resolve_compute(ComputeConfig(cuda_graphs=True), GPU, None, nn.Identity()).cuda_graphs
    with pytest.raises(
        ConfigError, match=r"cuda_graphs: Identity has no linear fusion.*cuda_graphs: auto"
    ):
        Compute(cuda_graphs=True).apply(nn.Identity())


def test_with_tf32_the_whole_network_is_channels_last(switches: None):
    network = SimpleBEV(grid=Grid((8, 4, 8)), widths=simplebev_sizes(latent=8))
    kernel = network.decoder.first_conv.weight
    Compute(channels_last=True).apply(network)
    assert not kernel.is_contiguous(memory_format=torch.channels_last)
    Compute(channels_last=True, tf32=True).apply(network)
    assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_without_a_gpu_a_graph_is_the_function():
    graph = Graph(lambda tree: {"sum": tree["a"] + tree["b"]}, "a sum")
    assert graph({"a": torch.ones(2), "b": 1.0})["sum"].tolist() == [2.0, 2.0]
    assert graph.refused is None


#: Behind a linear fusion layer, each of a program of its own.
GROUPS = [["identity-ratio", "uniform-identity"], ["identity-ratio-shapley"], ["coalitions"]]


@pytest.fixture(scope="module")
def visit(tiny_config: Path) -> tuple[Any, Visit]:
    """A network, and a sample with three partners."""
    config = load_config(str(tiny_config))
    network = build_network(config, CPU).network
    encode = Encoder(network, build_dataset(config), CPU)
    sample, *partners = [encode(i, False) for i in range(4)]
    return network, Visit(5, sample, partners)


@pytest.mark.parametrize("count", [4, 3])
@pytest.mark.parametrize("names", GROUPS)
def test_numbers_do_not_depend_on_who_asks(visit: tuple[Any, Visit], names: list[str], count: int):
    """What a graph would record gives the numbers of the visit itself; no graph without all
    partners."""
    network, own_visit = visit
    partners = [*own_visit.partners, *[Skipped(9, "x", "gone")] * (count == 3)]
    visited = replace(own_visit, partners=partners)
    variants = [Variant.parse(name) for name in names]
    task = Task(network, "segmentation", (), variants)
    actual = RecordedNumbers(task, visited.chunks)(visited)
    own = as_tensor(VariantPredictions(network, visited, "segmentation"), variants)
    assert len(own["numbers"]) == len(names) * (2 + 2 * 2 + 2 * 2 * 3)
    if count == 3:
        assert actual is None
        return
    assert actual is not None
    assert torch.equal(actual["numbers"], own["numbers"])
    assert torch.equal(actual["total"], own["total"])


WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal")


class ValuesRead(TorchDispatchMode):
    """Operators for which Python would wait for a GPU, as they are met."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in (
            "_local_scalar_dense",
            "is_nonzero",
            "nonzero",
            "equal",
        ):
            self.met.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("names", GROUPS)
def test_nothing_that_a_graph_records_looks_at_values(
    visit: tuple[Any, Visit], names: list[str], monkeypatch: pytest.MonkeyPatch
):
    """On a CPU, with the code told that it is being recorded."""
    network, own_visit = visit
    for module in (api, calls, forward, inputs):
        monkeypatch.setattr(module, "recording", lambda x: True)
    task = Task(network, "segmentation", (), [Variant.parse(name) for name in names])
    with ValuesRead() as read:
        RecordedNumbers(task, own_visit.chunks)(own_visit)
    assert read.met == []
    with ValuesRead() as read:
        bool(torch.ones(1).any())
    assert read.met == ["aten._local_scalar_dense.default"]


@pytest.mark.usefixtures("gpu")
def test_a_submodule_named_encoders_is_no_list_of_them():
    network = nn.Module()
    network.encoders = nn.ModuleDict({"mri": nn.Conv3d(1, 2, 3)})
    assert not resolve_compute(ComputeConfig(precision="bf16"), GPU, None, network).channels_last
    with pytest.raises(ConfigError, match=r"Module does not say which of its modules are enc"):
        Compute(channels_last=True).apply(network)  # type: ignore[arg-type]


# -- encoders -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setting(tiny_config: Path) -> tuple[Any, list[Any]]:
    """A network and batches of one sample."""
    config = load_config(str(tiny_config))
    dataset = build_dataset(config)
    return build_network(config, CPU).network, [collate([dataset[i]]) for i in range(4)]


@pytest.mark.parametrize(("precision", "digits"), [("bf16", 2**-8), ("fp16", 2**-11)])
def test_reduced_precision_is_the_encoders_alone(setting: Any, precision: Any, digits: float):
    network, batches = setting
    with torch.no_grad():
        plain = encode_features(network, batches[0])
        actual = encode_features(network, batches[0], precision)
    assert torch.equal(actual["radar"], plain["radar"])
    camera, wanted = actual["camera"], plain["camera"]
    assert camera.dtype == torch.float32
    # The projection is not rounded: the same voxels are seen, at the same pixels.
    assert torch.equal(camera != 0, wanted != 0)
    error = float((camera - wanted).norm() / wanted.norm())
    assert digits / 8 < error < digits * 16


def test_float32_is_the_plain_network(setting: Any):
    network, batches = setting
    with torch.no_grad():
        plain = network.encode(batches[0])
        assert torch.equal(encode_features(network, batches[0])["camera"], plain["camera"])


def test_channels_last_changes_the_format_of_encoders_alone(tiny_config: Path, setting: Any):
    network = build_network(load_config(str(tiny_config)), CPU).network
    Compute(channels_last=True).apply(network)
    last = {
        name
        for name, p in network.named_parameters()
        if p.dim() == 4
        and not p.is_contiguous()
        and p.is_contiguous(memory_format=torch.channels_last)
    }
    assert last
    assert all(name.startswith("encoder.") for name in last)
    with torch.no_grad():
        actual, wanted = (n.encode(setting[1][0])["camera"] for n in (network, setting[0]))
    assert float((actual - wanted).abs().max() / wanted.abs().max()) < 1e-5


# -- batches ------------------------------------------------------------------------------


def visit_of(network: Any, batches: list[Any], chunks: Chunks) -> Visit:
    encodings = []
    for i, batch in enumerate(batches):
        with torch.no_grad():
            features = network.encode(batch)
        encodings.append(Encoding(i, str(i), fused_parts(network, features), features))
    partners = encodings[1:] * 4
    return Visit(0, encodings[0], list(partners), chunks)


def test_batches_of_any_size_give_the_same_parts_within_the_budget(setting: Any):
    network, batches = setting
    entry = 8 * 24 * 24 * 4  # bytes of a partner's part behind the fusion layer
    peaks, actual = {}, {}
    for count in (1, 5, 12):
        visit = visit_of(network, batches, Chunks(linear=count * entry, head=count * entry))
        with Meter() as meter:
            predictions = VariantPredictions(network, visit, "segmentation")
            actual[count] = predictions.under(Variant()).perturbed
        peaks[count] = meter.peak
    for count in (5, 12):
        assert peaks[1] < peaks[count] <= peaks[1] + PASS_FACTOR * (count - 1) * entry
        for name, maps in actual[1].items():
            for a, b in zip(actual[count][name], maps, strict=True):
                assert a is not None
                assert b is not None
                torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


def test_partners_that_ride_along_do_so_in_any_number(setting: Any):
    network, batches = setting

    class Uncut:
        """The same network without its linear fusion layer."""

        modalities = network.modalities
        fuse = staticmethod(network.fuse)

    features = sum(x.numel() * 4 for x in network.encode(batches[0]).values())
    visits = [visit_of(network, batches, Chunks(parts=count * features)) for count in (1, 100)]
    few, many = (
        VariantPredictions(Uncut, visit, "segmentation").under(Variant()).perturbed  # type: ignore[arg-type]
        for visit in visits
    )
    for name, maps in few.items():
        for a, b in zip(many[name], maps, strict=True):
            assert a is not None
            assert b is not None
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


# -- runs ---------------------------------------------------------------------------------


def test_a_run_records_how_it_computed_and_refuses_to_go_on_otherwise(
    tiny_config: Path, tmp_path: Path
):
    def config(*settings: str) -> Any:
        return load_config(str(tiny_config), settings)

    evaluate(config("compute.precision=bf16", "compute.memory=1MB"), tmp_path, limit=1)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["config"]["compute"]["precision"] == "bf16"
    per_pass = 10**6 // 2 // PASS_FACTOR
    assert record["compute"] == {
        "channels_last": False,
        "chunk_bytes": {"linear": per_pass, "parts": per_pass, "head": per_pass},
    }
    with pytest.raises(ResultsError, match=r"compute\.precision: 'bf16' there, 'float32' here"):
        evaluate(config("compute.memory=1MB"), tmp_path, limit=1)
    with pytest.raises(ResultsError, match=r"compute\.chunk_bytes\.linear: 62500 there, 125000"):
        evaluate(config("compute.precision=bf16", "compute.memory=2MB"), tmp_path, limit=1)
    # Left to auto, it goes on with the batches that are there, but the config is another.
    with pytest.raises(ResultsError, match=r"compute\.memory: '1MB' there, 'auto' here"):
        evaluate(config("compute.precision=bf16"), tmp_path, limit=1)
