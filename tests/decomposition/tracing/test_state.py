"""What the network keeps, catches, asks and shares while it is decomposed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import dlpack

from lmd_cli.decomposition import (
    ConservationError,
    Decomposition,
    LeakError,
    NoRuleError,
    decompose,
)
from tests.support.rule_oracle import normal

C, R, L = normal(3, 4), normal(3, 4, seed=1), normal(3, 4, seed=2)

INPUTS = {"camera": C, "radar": R}


def both(function: Callable[..., Any], **options: Any) -> Decomposition:
    return decompose(function, INPUTS, **options)


# -- tensors that a network keeps ------------------------------------------------------------------


class Keeps(nn.Module):
    """Adds what it kept from the last call to its input."""

    def __init__(self, keep: str):
        super().__init__()
        self.keep, self.last, self.cells = keep, None, [None]
        self.table: dict[str, Any] = {}
        self.register_buffer("held", None)

        def closure(x: Tensor | None = None) -> Any:
            before, self.cells[0] = self.cells[0], x
            return before

        self.closure = closure

    def swapped(self, x: Tensor) -> Any:
        """What was kept before; ``x`` is kept now."""
        if self.keep == "closure":
            return self.closure(x)
        before = {
            "attribute": self.last,
            "buffer": self.held,
            "list": self.cells[-1],
            "dict": self.table.get("x"),
        }[self.keep]
        if self.keep == "attribute":
            self.last = x
        elif self.keep == "buffer":
            self.held = x
        elif self.keep == "list":
            self.cells.append(x)
        else:
            self.table["x"] = x
        return before

    def forward(self, **sensors: Tensor) -> Tensor:
        x = sum(sensors.values())
        before = self.swapped(x * 1.0)
        return x if before is None else x + before


@pytest.mark.parametrize("keep", ["attribute", "buffer", "list", "dict", "closure"])
def test_what_is_kept_is_plain_and_carries_nothing_into_the_next_run(keep: str) -> None:
    network = Keeps(keep)
    decompose(network, INPUTS)
    second = decompose(network, {"radar": R, "lidar": L})
    assert torch.equal(second.parts["radar"], R)
    assert torch.equal(second.parts["lidar"], L)
    torch.testing.assert_close(second.bias, C + R, rtol=0, atol=1e-15)
    plain = network(camera=C, radar=R)
    assert type(plain) is Tensor
    torch.testing.assert_close(plain, C + R + R + L)


def test_state_within_one_run_keeps_its_parts() -> None:
    network = Keeps("attribute")
    result = both(lambda camera, radar: network(x=camera) + network(x=radar))
    assert torch.equal(result.parts["camera"], 2.0 * C)


def test_an_input_that_was_kept_is_not_the_callers() -> None:
    kept: list[Tensor] = []
    both(lambda camera, radar: kept.append(camera) or camera + radar)
    kept[0].zero_()
    assert C.any()


# -- errors that a network catches -----------------------------------------------------------------


def swallows(wrong: Callable[[Tensor], Any], caught: type[Exception]) -> Callable[..., Tensor]:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        try:
            return wrong(camera + radar)
        except caught:
            return camera - radar

    return function


class Trained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4).double().train()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


WRONG: dict[str, tuple[Callable[[Tensor], Any], type[Exception]]] = {
    "no rule": (lambda x: x.lgamma(), NoRuleError),
    "refused": (lambda x: torch.linalg.inv(x @ x.mT), NoRuleError),
    "numpy": (lambda x: torch.from_numpy(x.numpy()), LeakError),
    "detached write": (lambda x: x.detach().add_(1.0), LeakError),
    "training mode": (lambda x: Trained()(x), NoRuleError),
    "dropout": (lambda x: nn.Dropout()(x), NoRuleError),
}


@pytest.mark.parametrize("name", WRONG)
def test_our_errors_fail_the_run_even_if_they_are_caught(name: str) -> None:
    wrong, kind = WRONG[name]
    for caught in (kind, Exception):
        with pytest.raises(kind):
            both(swallows(wrong, caught))
    if name not in ("numpy", "detached write"):
        with pytest.raises(kind):  # ours are no errors of torch's
            both(swallows(wrong, RuntimeError))


def test_torchs_own_errors_may_be_caught() -> None:
    result = both(swallows(lambda x: x @ x, RuntimeError))
    assert torch.equal(result.parts["radar"], -R)


def test_an_error_of_the_network_after_ours_does_not_hide_it() -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        try:
            return camera.lgamma()
        except NoRuleError:
            raise KeyError("a bug") from None

    with pytest.raises(NoRuleError, match="lgamma"):
        both(function)


# -- code that asks what it was given --------------------------------------------------------------

ASKS: dict[str, Callable[[Tensor], bool]] = {
    "exact type": lambda x: type(x) is Tensor,
    "class": lambda x: x.__class__ is Tensor,
    "home of the class": lambda x: type(x).__module__.split(".")[0] == "torch",
    "is_tensor": torch.is_tensor,
    "gradient": lambda x: not x.requires_grad and x.grad_fn is None,
    "leaf": lambda x: x.is_leaf,
    "attributes": lambda x: not hasattr(x, "parts") and x.__dict__ == {},
}


@pytest.mark.parametrize("name", ASKS)
def test_code_that_asks_sees_a_plain_tensor(name: str) -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera + radar
        return x * 2.0 if ASKS[name](camera) and ASKS[name](x) else x - camera

    with torch.no_grad():
        assert torch.equal(both(function).total, function(C, R))
    assert torch.equal(both(function).parts["camera"], 2.0 * C)


# -- hooks -----------------------------------------------------------------------------------------


def test_a_hook_that_returns_a_plain_tensor_is_a_leak() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).double()
    network[0].register_forward_hook(lambda module, args, output: output.detach() * 1.0)
    with pytest.raises(LeakError, match=r"'1'|'0'|\(root\)|no output carries parts"):
        both(lambda camera, radar: network(camera + radar))


def test_a_hook_of_the_root_that_drops_one_output_is_a_leak() -> None:
    class Pair(nn.Module):
        def forward(self, camera: Tensor, radar: Tensor) -> Any:
            return camera * 2.0, radar * 1.0

    network = Pair()
    network.register_forward_hook(lambda m, args, out: (out[0], out[1].detach() * 1.0))
    with pytest.raises(LeakError, match=r"\(root\).*output \[1\] depends on the features"):
        both(network)
    assert torch.equal(both(network, plain_modules=["(root)"]).parts["camera"][0], 2.0 * C)


def test_a_hook_that_goes_on_with_parts() -> None:
    network = nn.Sequential(nn.Identity(), nn.ReLU())
    network[0].register_forward_hook(lambda module, args, output: output * 3.0)
    network[1].register_forward_pre_hook(lambda module, args: (args[0] + 1.0,))
    result = both(lambda camera, radar: network(camera + radar))
    assert torch.equal(result.total, torch.relu((C + R) * 3.0 + 1.0))
    assert result.residual < 1e-15


# -- memory that other code writes to --------------------------------------------------------------


def after(write: Callable[[Tensor], Any]) -> Callable[..., Tensor]:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 1.0
        write(x)
        return x + radar

    return function


HIDDEN: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda x: x.detach().numpy().__setitem__(..., 5.0),
    "numpy of .data": lambda x: x.data.numpy().fill(5.0),
    "numpy of a view": lambda x: np.multiply(x[1:].detach().numpy(), 2.0, out=x[1:].data.numpy()),
    "DLPack": lambda x: torch.from_dlpack(x.detach()).fill_(5.0),
    "from_numpy": lambda x: torch.from_numpy(x.detach().numpy()).zero_(),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_write_that_no_operator_shows_is_an_error_at_the_end(name: str) -> None:
    with pytest.raises(ConservationError, match="written to past its parts"):
        both(after(HIDDEN[name]))


SEEN: dict[str, Callable[[Tensor], Any]] = {
    ".data": lambda x: x.data.fill_(5.0),
    "detached twice": lambda x: x.detach().data.fill_(5.0),
    "a view of a detached one": lambda x: x.detach()[0].zero_(),
    "detached setitem": lambda x: x.detach().__setitem__(0, 1.0),
    "out=": lambda x: torch.add(C, R, out=x.detach()),
    "apply_": lambda x: x.apply_(lambda value: 2.0 * value),
    "a capsule": lambda x: dlpack.from_dlpack(dlpack.to_dlpack(x)).fill_(5.0),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", SEEN)
def test_a_write_past_the_parts_is_a_leak(name: str, inference: bool) -> None:
    with torch.inference_mode(inference), pytest.raises(LeakError):
        both(after(SEEN[name]))


def test_a_capsule_would_drop_the_parts() -> None:
    with pytest.raises(LeakError, match="reads the memory of a tensor that carries parts"):
        both(lambda camera, radar: dlpack.from_dlpack(dlpack.to_dlpack(camera * 1.0)) + radar)


def test_values_that_were_detached_may_come_back_from_numpy() -> None:
    result = both(lambda camera, radar: camera + torch.from_numpy(radar.detach().numpy()))
    assert torch.equal(result.bias, R)
    assert not result.parts["radar"].any()


def test_parts_go_through_what_makes_a_tensor_of_the_same_memory() -> None:
    result = both(lambda camera, radar: camera.as_subclass(Tensor) + radar.requires_grad_(False))
    assert torch.equal(result.parts["camera"], C)
    assert torch.equal(result.parts["radar"], R)


def test_memory_that_no_operator_has_written_to() -> None:
    """An extension's kernel fills it; here, foreign code through its address."""
    import ctypes

    def function(camera: Tensor, radar: Tensor, address: bool = True) -> Tensor:
        made = torch.empty_like(camera)
        ctypes.memset(ADDRESS(made), 0, made.nbytes)
        return made + camera + radar

    with pytest.raises(LeakError, match="no operator of torch has written to"):
        both(function)


def ADDRESS(t: Tensor) -> int:
    """As compiled code gets it, past torch's functions."""
    with torch._C.DisableTorchFunction():
        return t.data_ptr()


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_results_can_be_copied_and_pickled(again: Callable[[Any], Any]) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).double()
    options: dict[str, Any] = {"layers": "all", "audit": True, "keep_maps": True}
    result = both(lambda camera, radar: {"x": network(camera + radar)}, root=network, **options)
    copied = again(result)
    assert torch.equal(copied.total["x"], result.total["x"])
    assert torch.equal(copied.parts["radar"]["x"], result.parts["radar"]["x"])
    assert copied.coverage == result.coverage
    assert copied.operations == result.operations
    assert torch.equal(copied.layers["0"].bias, result.layers["0"].bias)
    assert copied.program in (None, result.program)


def test_results_can_be_moved() -> None:
    result = both(lambda camera, radar: (camera + radar, torch.tensor([1, 2])), layers=())
    moved = result.to("meta")
    assert moved.total[0].device.type == moved.parts["camera"][0].device.type == "meta"
    assert moved.total[1].dtype == torch.int64
    assert result.to("cpu").residual == 0.0
    assert moved.layout is result.layout
