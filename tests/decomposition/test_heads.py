"""A head as one linear map: the same parts as module by module, with the convolution left out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_oracle import normal
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from lmd_cli.decomposition import DecompositionError, decompose_onward, heads, variant_names
from lmd_cli.decomposition.heads import find_head
from lmd_cli.decomposition.replay import Linearised
from lmd_cli.decomposition.variant import Variant

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
    found = decompose_onward(network, total, parts, variant, bias=bias, keep_frozen=True)
    return Linearised(network, found, bias, **{"inputs": 100, **options})


def partners(batch: int = 1) -> list[Tensor]:
    return [normal(batch, CHANNELS, *SIZE, seed=20 + i) for i in range(PARTNERS)]


def compare(linear: Linearised, inputs: list[Tensor]) -> int:
    """Both ways; how often the convolution ran for all of the inputs together."""
    for modality in ("camera", "radar"):
        with Counter() as counter:
            found = linear.parts(modality, inputs)
        for a, x in zip(found, inputs, strict=True):
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
        ["identity-ratio", "identity-identity", "identity-ratio-taylor-frozen"]
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
    linearised(head(), waiting=3 * one).parts("camera", partners())
    assert seen == [3, 1]


def test_for_few_inputs_a_head_runs() -> None:
    assert compare(linearised(head(), inputs=5), partners()) == PARTNERS
    assert compare(linearised(head(), inputs=6), partners()) == 0
    assert compare(linearised(head(outputs=2), inputs=11), partners()) == PARTNERS


def test_heads_are_found_within_longer_sequences() -> None:
    network = nn.Sequential(nn.Upsample(scale_factor=2), *head()).eval()
    assert find_head(network) is not None
    assert compare(linearised(network), partners()) == 0
    both = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), head()).double()
    assert compare(linearised(both), partners()) == 0


# -- where the network does more with it --------------------------------------------------


class Further(nn.Module):
    """Uses what the head gives, or what stands around it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.head, self.way = head(), way
        self.buffer = torch.zeros(1, CHANNELS, *SIZE, dtype=torch.float64)

    def forward(self, x: Tensor) -> Any:
        x = x.relu()
        if self.way == "module by module":
            for layer in self.head:
                x = layer(x)
            return x
        out = self.head(x)
        ways: dict[str, Callable[[], Any]] = {
            "sigmoid": lambda: out.sigmoid(),
            "view": lambda: out[:, 0],
            "in place": lambda: out.mul_(2.0),
            "joined": lambda: torch.cat([out, x], dim=1),
            "twice": lambda: out + self.head(x),
            "input overwritten": lambda: (x.mul_(3.0), out)[1],
            "input used": lambda: out + x.sum(1, keepdim=True),
        }
        return ways[self.way]()


@pytest.mark.parametrize(
    ("way", "ran"),
    [
        ("sigmoid", PARTNERS - 1),
        ("view", PARTNERS - 1),
        ("in place", PARTNERS - 1),
        ("joined", PARTNERS - 1),
        ("twice", None),
        ("input overwritten", PARTNERS),
        ("input used", PARTNERS - 1),
        ("module by module", PARTNERS),
    ],
)
def test_what_is_used_further_is_worked_out_at_once(way: str, ran: int | None) -> None:
    with Counter() as counter:
        linear = linearised(Further(way).eval())
        before = counter.count
        linear.parts("camera", partners())
    if ran is not None:
        assert counter.count - before == ran
    compare(linear, partners())


def test_one_buffer_for_all_inputs_is_told_from_inputs_that_stay() -> None:
    """A function that writes each input to the same memory overwrites those that wait."""
    memory: list[Tensor] = []
    network = head()

    def function(x: Tensor) -> Tensor:
        if not memory or memory[0].shape != x.shape or type(memory[0]) is not type(x):
            memory[:] = [x * 1.0]
        else:
            memory[0].copy_(x)
        return network(memory[0])  # type: ignore[no-any-return]

    linear = linearised(function)
    memory.clear()
    found = linear.parts("camera", partners())
    for a, x in zip(found, partners(), strict=True):
        memory.clear()
        torch.testing.assert_close(a, linear.part("camera", x), rtol=0, atol=1e-12)


def test_inputs_that_were_overwritten_are_told_when_another_output_is_used() -> None:
    """The first input waits; the second overwrites it, and its own output is used further."""
    memory: list[Tensor] = []
    network, calls = head(), [0]

    def function(x: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] < 3:
            memory[:] = [x * 1.0]
        else:
            memory[0].copy_(x)
        out = network(memory[0])
        return out * 1.0 if calls[0] == 3 else out  # type: ignore[no-any-return]

    linear = linearised(function)
    assert calls == [1]
    found = linear.parts("camera", partners())
    assert calls[0] > 1 + PARTNERS
    for a, x in zip(found, partners(), strict=True):
        torch.testing.assert_close(a, linear.part("camera", x), rtol=0, atol=1e-12)


# -- what is no head ----------------------------------------------------------------------


class OwnSequential(nn.Sequential):
    """May read what stands between its modules."""


class OwnReLU(nn.ReLU):
    """May do anything."""


def with_hook(network: nn.Sequential, at: int | None) -> nn.Sequential:
    (network if at is None else network[at]).register_forward_hook(lambda *_: None)
    return network


def replaced(network: nn.Sequential) -> nn.Sequential:
    layer = network[2]
    layer.forward = lambda x: x.relu()  # type: ignore[method-assign, assignment]
    return network


def conv(**options: Any) -> nn.Sequential:
    own = {"kernel_size": 3, "padding": 1, **options}
    return nn.Sequential(nn.Conv2d(CHANNELS, 6, **own), nn.ReLU(), nn.Conv2d(6, 1, 1)).double()


NO_HEADS: dict[str, Callable[[], nn.Module]] = {
    "a subclass": lambda: OwnSequential(*head()),
    "an own activation": lambda: head(activation=OwnReLU),
    "a replaced method": lambda: replaced(head()),
    "a hook on it": lambda: with_hook(head(), None),
    "a hook on the convolution": lambda: with_hook(head(), 0),
    "a hook on the norm": lambda: with_hook(head(), 1),
    "steps of two": lambda: conv(stride=2),
    "gaps": lambda: conv(dilation=2, padding=2),
    "smaller": lambda: conv(padding=0),
    "even": lambda: conv(kernel_size=2),
    "oblong": lambda: conv(kernel_size=(1, 3), padding=(0, 1)),
    "around the edge": lambda: conv(padding_mode="reflect"),
    "by name": lambda: conv(padding="same"),
    "groups": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.ReLU(), nn.Conv2d(6, 1, 1)
    ).double(),
    "a wide last convolution": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 1, 3, padding=1)
    ).double(),
}


@pytest.mark.parametrize("case", NO_HEADS)
def test_other_sequences_run_as_they_are(case: str) -> None:
    network = NO_HEADS[case]().eval()
    assert find_head(network) is None
    assert compare(linearised(network), partners()) == PARTNERS


def test_a_parametrised_weight_is_none_either() -> None:
    """It is worked out anew at every call."""
    network = conv().eval()
    nn.utils.parametrizations.weight_norm(network[0])
    assert find_head(network) is None


@contextmanager
def watched() -> Iterator[list[Any]]:
    """Somebody else's hook on all modules."""
    seen: list[Any] = []
    handle = register_module_forward_hook(lambda module, args, out: seen.append(out))
    try:
        yield seen
    finally:
        handle.remove()


def test_others_who_watch_all_modules_see_what_they_would() -> None:
    linear = linearised(head())
    with watched() as seen, Counter() as counter:
        linear.parts("camera", partners())
    assert counter.count == PARTNERS
    assert len(seen) == 5 * PARTNERS


def test_a_decomposition_in_another_thread_changes_nothing() -> None:
    """Its hooks on all modules are ours."""
    linear, entered, done = linearised(head()), threading.Event(), threading.Event()

    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            entered.set()
            done.wait()
            return x

    thread = threading.Thread(target=lambda: linearised(Slow()))
    thread.start()
    entered.wait()
    with Counter() as counter:
        linear.parts("camera", partners())
    done.set()
    thread.join()
    assert counter.count == 0


def test_other_threads_run_undisturbed() -> None:
    network, x = head(), partners()[0]
    plain, found = network(x), []

    class Inner(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            thread = threading.Thread(target=lambda: found.append(network(x)))
            thread.start()
            thread.join()
            return network(h)  # type: ignore[no-any-return]

    linearised(Inner()).parts("camera", partners())
    assert all(torch.equal(y, plain) for y in found)
    assert len(found) == PARTNERS + 1


def test_a_head_that_calls_something_else_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = linearised(head())
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x * 2.0)
    with pytest.raises(DecompositionError, match="mul within a head"):
        linear.parts("camera", partners())
