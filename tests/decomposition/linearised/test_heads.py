"""A head as one linear map: the same parts as module by module, with the convolution left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lmd_cli.decomposition import decompose_onward, variant_names
from lmd_cli.decomposition.linearised import heads
from lmd_cli.decomposition.linearised.replay import Linearised
from lmd_cli.decomposition.result import kept_program
from lmd_cli.decomposition.variant import Variant
from tests.support.rule_oracle import normal

CHANNELS, SIZE, PARTNERS = 3, (5, 7), 4

ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.ReLU,
    lambda: nn.ReLU(inplace=True),
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
]
NORMS: list[Callable[[], nn.Module] | None] = [
    None,
    lambda: nn.InstanceNorm2d(6),
    lambda: nn.InstanceNorm2d(6, affine=True),
    lambda: nn.InstanceNorm2d(6, track_running_stats=True),
    lambda: nn.BatchNorm2d(6),
]


def head(
    kernel: int = 3,
    norm: Callable[[], nn.Module] | None = NORMS[1],
    activation: Callable[[], nn.Module] = nn.ReLU,
    outputs: int = 1,
    seed: int = 0,
) -> nn.Sequential:
    """A head of random weights, float64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = nn.Conv2d(CHANNELS, 6, kernel, padding=kernel // 2)
        norms = [] if norm is None else [norm()]
        made = nn.Sequential(first, *norms, activation(), nn.Conv2d(6, outputs, 1)).double()
        for value in (*made.parameters(), *made.buffers()):
            if value.is_floating_point():
                value.data.uniform_(0.5, 1.5) if value.dim() == 1 else value.data.normal_()
    return made.eval()


class Counter(TorchDispatchMode):
    """Counts the convolutions to six channels, which a head as one map leaves out."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default and args[1].shape[0] == 6:
            self.count += 1
        return func(*args, **(kwargs or {}))


def linearised(
    network: Callable[[Tensor], Any], variant: str = "identity-ratio", **options: Any
) -> Linearised:
    parts = {name: normal(1, CHANNELS, *SIZE, seed=s) for s, name in enumerate(("camera", "radar"))}
    bias = normal(1, CHANNELS, *SIZE, seed=9)
    total = sum(parts.values()) + bias
    actual = decompose_onward(network, total, parts, variant, bias=bias, keep_maps=True)
    return Linearised(actual, **{"inputs": 100, **options})


def partners(batch: int = 1) -> list[Tensor]:
    return [normal(batch, CHANNELS, *SIZE, seed=20 + i) for i in range(PARTNERS)]


def compare(linear: Linearised, inputs: list[Tensor]) -> int:
    """Both ways; how often the convolution ran for all of the inputs together."""
    for modality in ("camera", "radar"):
        with Counter() as counter:
            actual = linear.parts(modality, inputs)
        for a, x in zip(actual, inputs, strict=True):
            wanted = linear.part(modality, x)
            scale = max(1.0, float(wanted.abs().max()))
            torch.testing.assert_close(a, wanted, rtol=0, atol=1e-12 * scale)
    return counter.count


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kernel=st.sampled_from([1, 3, 5]),
    norm=st.sampled_from(NORMS),
    activation=st.sampled_from(ACTIVATIONS),
    outputs=st.integers(1, 3),
    batch=st.integers(1, 2),
    variant=st.sampled_from(
        [
            "identity-ratio",
            "identity-identity",
            "identity-ratio-taylor-frozen",
            "identity-ratio-shapley",
        ]
    ),
    seed=st.integers(0, 5),
)
def test_a_head_is_one_map(
    kernel: int, norm: Any, activation: Any, outputs: int, batch: int, variant: str, seed: int
) -> None:
    network = head(kernel, norm, activation, outputs, seed)
    assert compare(linearised(network, variant), partners(batch)) == 0


@pytest.mark.parametrize("variant", variant_names())
def test_every_variant_gives_the_parts_of_single_modules(variant: str) -> None:
    """Where constants or the bias are shared out, a head is more than factors and runs."""
    ran = compare(linearised(head(), variant), partners())
    rules = Variant.parse(variant)
    shares = rules.activation in ("sum", "ratio") or rules.norm == "uniform"
    assert ran == (PARTNERS if shares else 0)


def test_rows_of_the_map_are_worked_out_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    row = SIZE[1] * CHANNELS * 9 * 8
    for rows in (1, 2, 3):
        monkeypatch.setattr(heads, "BLOCK", rows * row)
        assert compare(linearised(head()), partners()) == 0


def test_as_many_wait_as_may(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    call = heads.LinearHead.__call__

    def spied(self: Any, inputs: Any) -> Tensor:
        seen.append(len(inputs))
        return call(self, inputs)

    monkeypatch.setattr(heads.LinearHead, "__call__", spied)
    one = partners()[0].nbytes
    linearised(head(), head_batch=3 * one).parts("camera", partners())
    assert seen == [3, 1]


def test_for_few_inputs_a_head_runs() -> None:
    assert compare(linearised(head(), inputs=5), partners()) == PARTNERS
    assert compare(linearised(head(), inputs=6), partners()) == 0
    assert compare(linearised(head(outputs=2), inputs=11), partners()) == PARTNERS


def heads_in(network: Callable[[Tensor], Any]) -> int:
    """How many heads are found in the program of a network."""
    x = normal(1, CHANNELS, *SIZE)
    actual = decompose_onward(network, x, {"camera": x}, keep_maps=True)
    return len(heads.find_heads(kept_program(actual)))


def test_heads_are_found_behind_other_layers() -> None:
    network = nn.Sequential(nn.Upsample(scale_factor=2), *head()).eval()
    assert heads_in(network) == 1
    assert compare(linearised(network), partners()) == 0
    both = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), head()).double()
    assert compare(linearised(both), partners()) == 0


# -- where the network does more with it --------------------------------------------------


class Further(nn.Module):
    """Uses what the head gives, or what stands around it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.head, self.way = head(), way

    def forward(self, x: Tensor) -> Any:
        x = x.relu()
        if self.way == "module by module":
            for layer in self.head:
                x = layer(x)
            return x
        if self.way == "what stands between":
            between = self.head[:3](x)
            return self.head[3](between), between.sum(1)
        out = self.head(x)
        ways: dict[str, Callable[[], Any]] = {
            "sigmoid": lambda: out.sigmoid(),
            "view": lambda: out[:, 0],
            "in place": lambda: out.mul_(2.0),
            "joined": lambda: torch.cat([out, x], dim=1),
            "twice": lambda: out + self.head(x),
            "two outputs": lambda: (out, self.head(x * 2)),
            "input overwritten": lambda: (x.mul_(3.0), out)[1],
            "input used": lambda: out + x.sum(1, keepdim=True),
        }
        return ways[self.way]()


@pytest.mark.parametrize(
    ("way", "ran"),
    [
        ("sigmoid", PARTNERS),
        ("view", 0),
        ("in place", PARTNERS),
        ("joined", PARTNERS),
        ("twice", 2 * PARTNERS),
        ("two outputs", 0),
        ("input overwritten", 0),
        ("input used", PARTNERS),
        ("module by module", 0),
        ("what stands between", PARTNERS),
    ],
)
def test_what_is_used_further_runs_as_it_is(way: str, ran: int) -> None:
    linear = linearised(Further(way).eval())
    with Counter() as counter:
        linear.parts("camera", partners())
    assert counter.count == ran
    for modality in ("camera", "radar"):
        for actual, x in zip(linear.parts(modality, partners()), partners(), strict=True):
            wanted = linear.part(modality, x)
            for a, b in zip(tensors(actual), tensors(wanted), strict=True):
                scale = max(1.0, float(b.abs().max()))
                torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * scale)


def tensors(tree: Any) -> list[Tensor]:
    return list(tree) if isinstance(tree, tuple) else [tree]


def test_one_buffer_for_all_inputs() -> None:
    """A function that writes each input to the same memory."""
    memory = torch.zeros(1, CHANNELS, *SIZE, dtype=torch.float64)
    network = head()

    def function(x: Tensor) -> Tensor:
        return network(memory.copy_(x))  # type: ignore[no-any-return]

    assert compare(linearised(function), partners()) == 0


def test_nothing_of_the_network_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = linearised(head())
    wanted = linear.parts("camera", partners())
    monkeypatch.setattr(nn.Sequential, "forward", None)
    for actual, expected in zip(linear.parts("camera", partners()), wanted, strict=True):
        assert torch.equal(actual, expected)


# -- what is no head ----------------------------------------------------------------------


class OwnReLU(nn.ReLU):
    """Another activation."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() * 2.0


def with_hook(network: nn.Sequential, at: int | None) -> nn.Sequential:
    (network if at is None else network[at]).register_forward_hook(lambda *_: None)
    return network


def scaling_hook(network: nn.Sequential) -> nn.Sequential:
    network[1].register_forward_hook(lambda _, inputs, out: out * 2.0)
    return network


def replaced(network: nn.Sequential) -> nn.Sequential:
    layer = network[2]
    layer.forward = lambda x: x.relu()  # type: ignore[method-assign, assignment]
    return network


def conv(**options: Any) -> nn.Sequential:
    own = {"kernel_size": 3, "padding": 1, **options}
    return nn.Sequential(nn.Conv2d(CHANNELS, 6, **own), nn.ReLU(), nn.Conv2d(6, 1, 1)).double()


def parametrised() -> nn.Sequential:
    network = conv()
    nn.utils.parametrizations.weight_norm(network[0])
    return network


NO_HEADS: dict[str, Callable[[], nn.Module]] = {
    "another activation": lambda: head(activation=OwnReLU),
    "a hook that changes something": lambda: scaling_hook(head()),
    "steps of two": lambda: conv(stride=2),
    "gaps": lambda: conv(dilation=2, padding=2),
    "smaller": lambda: conv(padding=0),
    "even": lambda: conv(kernel_size=2),
    "oblong": lambda: conv(kernel_size=(1, 3), padding=(0, 1)),
    "around the edge": lambda: conv(padding_mode="reflect"),
    "groups": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.ReLU(), nn.Conv2d(6, 1, 1)
    ).double(),
    "a wide last convolution": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 1, 3, padding=1)
    ).double(),
    "a norm of several channels": lambda: head(norm=lambda: nn.GroupNorm(2, 6)),
}


@pytest.mark.parametrize("case", NO_HEADS)
def test_other_sequences_run_as_they_are(case: str) -> None:
    assert compare(linearised(NO_HEADS[case]().eval()), partners()) == PARTNERS


HEADS: dict[str, Callable[[], nn.Module]] = {
    "by name": lambda: conv(padding="same"),
    "a replaced method": lambda: replaced(head()),
    "a hook on it": lambda: with_hook(head(), None),
    "a hook on the convolution": lambda: with_hook(head(), 0),
    "parametrised": parametrised,
}


@pytest.mark.parametrize("case", HEADS)
def test_what_the_modules_are_does_not_matter(case: str) -> None:
    """The steps do."""
    network = HEADS[case]().eval()
    assert heads_in(network) == 1
    assert compare(linearised(network), partners()) == 0
