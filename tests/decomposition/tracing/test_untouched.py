"""Nothing is left behind on the user's model or in torch, also after an exception."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack

from lmd_cli.decomposition import DecompositionError, NoRuleError, decompose
from tests.support.random_networks import Case, cases
from tests.support.rule_oracle import normal

HOOKS = [name for name in vars(nn.Module()) if "hooks" in name]
GLOBAL_HOOKS = [
    name for name in vars(torch_module) if name.startswith("_global_") and "hook" in name
]


def state_of(network: nn.Module) -> dict[str, Any]:
    """Everything that a user could see changed, by module and parameter."""
    state: dict[str, Any] = {
        name: (value.numpy(force=True).tobytes(), value.dtype, value._version)
        for name, value in network.state_dict().items()
    }
    for name, module in network.named_modules():
        hooks = {hook: dict(getattr(module, hook)) for hook in HOOKS}
        ids = {key: id(value) for key, value in vars(module).items()}
        state[f"module {name}"] = (module.training, sorted(vars(module)), ids, hooks)
    for name, parameter in network.named_parameters():
        state[f"parameter {name}"] = (id(parameter), parameter.requires_grad, parameter.grad)
    for name, buffer in network.named_buffers():
        state[f"buffer {name}"] = (id(buffer), buffer.requires_grad)
    return state


def state_of_torch() -> Any:
    hooks = {name: len(getattr(torch_module, name) or ()) for name in GLOBAL_HOOKS}
    return hooks, len(_get_current_function_mode_stack()), torch.is_grad_enabled()


class Fails(nn.Module):
    """Raises in the middle of the network, in one of the ways that code can."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "own error":
            raise KeyError("a user's bug")
        if self.how == "no rule":
            return x.lgamma()
        if self.how == "leak":
            return x.detach()
        return x @ x.new_zeros(99, 99)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(cases(max_blocks=4))
def test_model_is_unchanged(case: Case) -> None:
    before, torch_before = state_of(case.network), state_of_torch()
    decompose(case.network, case.inputs, case.variant, layers="all", audit=True, extras=case.extras)
    assert state_of(case.network) == before
    assert state_of_torch() == torch_before


@pytest.mark.parametrize("how", ["own error", "no rule", "leak", "shape"])
@pytest.mark.parametrize("options", [{}, {"layers": "all", "audit": True}])
def test_model_is_unchanged_after_an_exception(how: str, options: dict[str, Any]) -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Sequential(nn.ReLU(inplace=True), Fails(how))
    )
    network = network.double().eval()
    before, torch_before = state_of(network), state_of_torch()
    x = normal(1, 2, 4, 4)
    for _ in range(2):
        with pytest.raises((KeyError, DecompositionError, RuntimeError)):
            decompose(lambda camera: network(camera), {"camera": x}, **options)
        assert state_of(network) == before
        assert state_of_torch() == torch_before
    working = network[:2]
    assert torch.equal(decompose(lambda camera: working(camera), {"camera": x}).total, working(x))


def test_an_exception_that_the_network_handles_is_no_warning(recwarn: Any) -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.other = Fails("own error"), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.first(x)
            except KeyError:
                return self.other(x.exp())

    network = Tries()
    result = decompose(lambda camera: network(camera), {"camera": normal(2, 3)}, audit=True)
    assert [(r.module, r.operation.split(".")[-1]) for r in result.operations] == [
        ("", "exp"),
        ("other", "relu"),
    ]
    assert not [w for w in recwarn if "silenced" in str(w.message)]


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm2d(3, momentum=None),
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.Dropout(0.5),
        nn.Dropout2d(0.1),
        nn.RReLU(),
    ],
    ids=repr,
)
def test_training_mode_is_refused_before_anything_changes(module: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), module).double().train()
    before, generator = state_of(network), torch.get_rng_state()
    with pytest.raises(NoRuleError, match=r"\.eval\(\)") as error:
        decompose(lambda camera: network(camera), {"camera": normal(2, 2, 4, 4)})
    assert "'1'" in str(error.value)
    assert type(module).__name__ in str(error.value)
    assert state_of(network) == before
    assert torch.equal(torch.get_rng_state(), generator)


def test_other_modules_may_be_in_training_mode() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Dropout(0.0), nn.InstanceNorm2d(3), nn.ReLU())
    network = network.double().train()
    x = normal(2, 2, 4, 4)
    assert torch.equal(decompose(lambda camera: network(camera), {"camera": x}).total, network(x))


def test_the_second_call_is_the_first() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.GELU()).double().eval()
    inputs = {"camera": normal(1, 2, 5, 5)}
    first, second = (decompose(lambda camera: network(camera), inputs) for _ in range(2))
    assert torch.equal(first.parts["camera"], second.parts["camera"])
    assert torch.equal(first.bias, second.bias)


def test_another_thread_is_left_alone() -> None:
    """Torch's global hooks see every thread's modules; a run must follow only its own."""
    other = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).double().train()
    seen: list[Tensor] = []

    class RunsAThread(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            thread = threading.Thread(target=lambda: seen.append(other(normal(2, 2, 4, 4))))
            thread.start()
            thread.join()
            return x * 2.0

    module = RunsAThread()
    result = decompose(lambda camera: module(camera), {"camera": normal(2, 3)}, layers="all")
    assert list(result.layers) == [""]
    assert seen[0].shape == (2, 3, 4, 4)
