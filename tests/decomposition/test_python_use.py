"""From Python: dataclasses, batches, autocast, reused modules, checkpointing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lmd_cli
from lmd_cli import Variant, decompose, explain_coverage, register_rule
from lmd_cli.decomposition import InputError, LeakError
from tests.support.rule_oracle import assert_replayed, normal

C, R = normal(2, 3, 4), normal(2, 3, 4, seed=1)


def test_the_names_that_the_package_exports() -> None:
    assert {"Variant", "decompose", "explain_coverage", "register_rule"} <= set(lmd_cli.__all__)
    assert callable(explain_coverage)
    assert callable(register_rule)
    assert Variant().name == "identity-ratio"


@dataclass(frozen=True)
class Frame:
    near: Tensor
    far: list[Tensor]
    token: str = "sample"


@dataclass
class Detections:
    score: Tensor
    boxes: dict[str, Tensor] = field(default_factory=dict)


def detect(camera: Frame, radar: Tensor) -> Detections:
    x = camera.near + camera.far[0] * radar.mean()
    return Detections(torch.relu(x), {"size": 2.0 * radar + 1.0})


def test_dataclasses_as_inputs_and_outputs() -> None:
    inputs = {"camera": Frame(C, [R], "a"), "radar": R}
    with pytest.raises(InputError, match=r"'camera'\.token: expected a floating-point tensor"):
        decompose(detect, inputs)


@dataclass
class Pair:
    near: Tensor
    far: list[Tensor]


def detect_pair(camera: Pair, radar: Tensor) -> Detections:
    return detect(camera, radar)  # type: ignore[arg-type]


def test_dataclasses_of_tensors() -> None:
    inputs = {"camera": Pair(C, [R]), "radar": R}
    result = decompose(detect_pair, inputs, extras={"camera": [Pair(2.0 * C, [R])]}, keep_maps=True)
    assert isinstance(result.total, Detections)
    assert torch.equal(result.total.score, torch.relu(C + R * R.mean()))
    assert torch.equal(result.parts["radar"].boxes["size"], 2.0 * R)
    assert torch.equal(result.bias.boxes["size"], torch.ones_like(R))
    mask = (result.total.score > 0).double()
    assert torch.equal(result.parts["camera"].score, mask * C)
    assert torch.equal(result.extras["camera"][0].score, mask * 2.0 * C)
    assert isinstance(inputs["camera"].near, Tensor)
    assert type(inputs["camera"].near) is Tensor  # the caller's own stays as it was
    assert_replayed(inputs, result)
    with pytest.raises(InputError, match="extra 0 of 'camera' has another structure"):
        decompose(detect_pair, inputs, extras={"camera": [Pair(C, [R, R])]})


def test_a_module_that_hides_a_plain_tensor_in_a_dataclass() -> None:
    class Forgetful(nn.Module):
        def forward(self, x: Tensor) -> Detections:
            return Detections(x.detach() * 2.0)

    module = Forgetful()
    with pytest.raises(LeakError, match=r"its output \.score depends on the features"):
        decompose(lambda camera: module(camera).score + camera, {"camera": C})


class Everything(nn.Module):
    """Convolutions, every norm, attention, softmax, quotients and resampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 4, 2, 2)
        self.norms = nn.Sequential(
            nn.BatchNorm2d(8), nn.ReLU(), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8)
        )
        self.token_norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        x = F.max_pool2d(self.norms(self.stem(camera + radar)), 2)
        x = torch.sigmoid(x) * x
        t = self.token_norm(x.flatten(2).mT)
        t = self.mix(t + self.attention(t, t, t)[0])
        t = (F.gelu(t) @ t.mT).softmax(-1) @ self.mix(t)
        t = F.normalize(t, dim=-1) / (t.var(-1, keepdim=True) + 1e-2).sqrt()
        t = F.scaled_dot_product_attention(t, t, t)
        x = F.interpolate(self.up(t.mT.unflatten(2, x.shape[2:])), scale_factor=2, mode="bilinear")
        return x.exp().log_softmax(1)


with torch.random.fork_rng():
    torch.manual_seed(0)
    NETWORK = Everything().eval()
IMAGES = {"camera": normal(3, 3, 8, 8).float(), "radar": normal(3, 3, 8, 8, seed=1).float()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "variant", ["identity-ratio", "uniform-identity-sum", "identity-uniform-taylor-frozen"]
)
def test_autocast_is_the_plain_autocast_call(dtype: torch.dtype, variant: str) -> None:
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        plain = NETWORK(**IMAGES)
        extras = {"radar": [IMAGES["camera"]]}
        result = decompose(NETWORK, IMAGES, variant, extras=extras, audit="raise")
    assert torch.equal(result.total, plain)
    assert result.total.dtype == plain.dtype == dtype
    assert result.parts["camera"].dtype == result.extras["radar"][0].dtype == dtype


@pytest.mark.parametrize("variant", ["identity-ratio", "identity-ratio-taylor-taylor"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inside_conserves_as_half_precision_does(
    dtype: torch.dtype, variant: str
) -> None:
    images = {"camera": normal(2, 64, 64).float(), "radar": normal(2, 64, 64, seed=1).float()}
    weight = normal(64, 64, seed=2).float() / 8.0

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=dtype):
            x = F.gelu(F.linear(camera, weight) + F.linear(radar, weight))
        return x.float()

    result = decompose(function, images, variant)
    assert torch.equal(result.total, function(**images))
    assert 1e-5 < result.residual < 8 * torch.finfo(dtype).eps


def test_a_batch_is_its_samples_one_by_one() -> None:
    network, images = NETWORK.double(), {name: x.double() for name, x in IMAGES.items()}
    try:
        together = decompose(network, images, audit="raise")
        for i in range(3):
            alone = decompose(network, {name: x[i : i + 1] for name, x in images.items()})
            for name in images:
                torch.testing.assert_close(
                    together.parts[name][i : i + 1], alone.parts[name], rtol=0, atol=1e-11
                )
    finally:
        NETWORK.float()


def test_a_module_and_a_function_that_run_many_times() -> None:
    shared = nn.Sequential(nn.Linear(4, 4), nn.SiLU()).double()

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera + radar
        for _ in range(20):
            x = x + 0.1 * shared(x)
        return x

    with torch.no_grad():
        plain = function(C, R)
    root = nn.ModuleDict({"shared": shared})
    first = decompose(function, {"camera": C, "radar": R}, root=root, audit="raise")
    second = decompose(function, {"camera": C, "radar": R}, root=root, layers=["shared"])
    assert torch.equal(first.total, plain)
    assert torch.equal(first.parts["camera"], second.parts["camera"])
    assert list(second.layers)[-1] == "shared#20"
    calls = {r.operation: r.calls for r in explain_coverage(
        function, {"camera": C, "radar": R}, root=root
    ).rows}  # fmt: skip
    assert calls["torch.nn.functional.linear"] == 20


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_modules(reentrant: bool) -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return checkpoint(inner, camera + radar, use_reentrant=reentrant)

    inputs = {"camera": C, "radar": R}
    with torch.no_grad():
        plain = function(C, R)
    result = decompose(function, inputs, audit="raise", keep_maps=True)
    assert torch.equal(result.total, plain)
    wanted = decompose(lambda camera, radar: inner(camera + radar), inputs)
    assert torch.equal(result.parts["radar"], wanted.parts["radar"])
    assert_replayed(inputs, result)


def test_gradients_flow_through_the_new_rules() -> None:
    """d part / d input by finite differences of the parts at a frozen operating point's slopes."""

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 2.0 + radar
        return (x / x.norm(dim=-1, keepdim=True)).square().cumsum(0).topk(2).values

    camera = C.clone().requires_grad_()
    result = decompose(function, {"camera": camera, "radar": R}, grad=True)
    (gradient,) = torch.autograd.grad(result.parts["camera"].sum(), camera)
    step, direction = 1e-6, normal(2, 3, 4, seed=5)

    def part(x: Any) -> Tensor:
        return decompose(function, {"camera": x, "radar": R}).parts["camera"].sum()

    slope = (part(C + step * direction) - part(C - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-7)


BAD_INPUTS: dict[str, tuple[Any, str]] = {
    "a list": ([C, R], r"inputs is a list; expected a dict that gives each modality"),
    "a number as a name": ({0: C}, r"inputs has the key 0; expected names of arguments"),
    "a number": (
        {"camera": 3, "radar": R},
        r"input 'camera': expected a .* got int",
    ),
    "an array": ({"camera": C.numpy(), "radar": R}, r"input 'camera': .* got ndarray"),
    "integers": ({"camera": {"x": [C.int()]}, "radar": R}, r"'camera'\['x'\]\[0\]: .* torch.int32"),
    "complex": ({"camera": C * 1j, "radar": R}, r"input 'camera': .* got torch.complex128"),
    "NaN": ({"camera": C, "radar": [R, R / 0 * 0]}, r"input 'radar'\[1\] holds NaN; expected fin"),
    "infinity": ({"camera": C / 0, "radar": R}, r"'camera' holds infinite values.*constants="),
    "none": ({}, r"at least one modality"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
@pytest.mark.parametrize("call", [decompose, explain_coverage])
def test_bad_inputs(call: Any, name: str) -> None:
    inputs, said = BAD_INPUTS[name]
    with pytest.raises(InputError, match=said):
        call(lambda camera, radar: camera + radar, inputs)


def test_compiled_modules_and_functions_are_decomposed_as_they_are_written() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()
    inputs = {"camera": C, "radar": R}
    wanted = decompose(lambda camera, radar: module(camera + radar), inputs)
    for compiled in (
        torch.compile(module, backend="eager"),
        torch.compile(lambda x: module(x), backend="eager"),
    ):
        with torch.no_grad():
            compiled(C + R)
        result = decompose(lambda camera, radar: compiled(camera + radar), inputs, audit="raise")  # noqa: B023
        assert torch.equal(result.total, wanted.total)
        assert torch.equal(result.parts["radar"], wanted.parts["radar"])


def test_what_was_not_compiled_yet_is_compiled_when_it_is_called() -> None:
    """A decomposition neither compiles nor keeps torch from doing so later."""
    torch._dynamo.reset()  # what other tests compiled of nn.Sequential counts for its limit
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    decompose(lambda camera, radar: compiled(camera + radar), {"camera": C, "radar": R})
    assert not graphs
    with torch.no_grad():
        compiled(C + R)
    assert len(graphs) == 1
