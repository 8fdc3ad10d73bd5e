"""Constants of the operating point: computed on totals, listed in the coverage, never parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import decompose, find_rule
from lmd_cli.decomposition.registry import function_name, registered_operators
from tests.support.rule_oracle import normal

X = normal(3, 4)
CONSTANTS: dict[str, Callable[[Tensor], Any]] = {
    "torch.Tensor.detach": lambda x: x.detach(),
    "torch.Tensor.data.__get__": lambda x: x.data,
    "torch.Tensor.gt": lambda x: x > 0.1,
    "torch.Tensor.le": lambda x: x <= 0.1,
    "torch.Tensor.__eq__": lambda x: x == x.flip(0),
    "torch.Tensor.ne": lambda x: x != 0.5,
    "torch.ge": lambda x: torch.ge(x, 0.0),
    "torch.isfinite": torch.isfinite,
    "torch.argmax": lambda x: torch.argmax(x, 1),
    "torch.Tensor.argmin": lambda x: x.argmin(0),
    "torch.Tensor.argsort": lambda x: x.argsort(1),
    "torch.Tensor.nonzero": lambda x: x.nonzero(),
    "torch.where": lambda x: torch.where(x),
    "torch.Tensor.item": lambda x: x[0, 0].item(),
    "torch.Tensor.__bool__": lambda x: bool(x[0, 0]),
    "torch.Tensor.__float__": lambda x: float(x[0, 0]),
    "torch.Tensor.__int__": lambda x: int(10 * x[0, 0]),
    "torch.Tensor.long": lambda x: (x * 10).long(),
    "torch.Tensor.to": lambda x: (x * 10).to(torch.int32),
    "torch.Tensor.type": lambda x: (x * 10).type(torch.LongTensor),
    "torch.allclose": lambda x: torch.allclose(x, x),
    "torch.Tensor.__repr__": lambda x: repr(x),
    "torch.Tensor.__format__": lambda x: f"{x[0, 0]:.3f}",
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant_is_what_the_total_gives_and_is_listed(name: str) -> None:
    actual: list[Any] = []

    def function(camera: Tensor) -> Tensor:
        actual.append(CONSTANTS[name](camera))
        return camera * 2.0

    result = decompose(function, {"camera": X})
    wanted = CONSTANTS[name](X)
    for a, b in zip(as_tuple(actual[0]), as_tuple(wanted), strict=True):
        assert type(a) is type(b)
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    rule = result.coverage["", name]
    assert rule.kind == "constant"


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def test_coverage_names_the_module_and_the_rule() -> None:
    class Mask(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (x > 0)

    network = nn.Sequential(nn.Linear(4, 4), Mask()).double()
    coverage = decompose(lambda camera: network(camera), {"camera": X}).coverage
    assert coverage["1", "torch.Tensor.gt"].kind == "constant"
    assert coverage["1", "torch.Tensor.mul"].kind == "product"
    assert coverage["0", "torch.nn.functional.linear"].kind == "linear"


METADATA: dict[str, Callable[[Tensor], Any]] = {
    "shape": lambda x: x.shape,
    "size": lambda x: (x.size(), x.size(1)),
    "dim": lambda x: (x.dim(), x.ndim, x.numel(), len(x), x.nelement(), x.stride()),
    "type": lambda x: (
        x.dtype,
        x.device,
        x.layout,
        x.is_floating_point(),
        x.element_size(),
        x.nbytes,
    ),
    "flags": lambda x: (x.is_contiguous(), x.is_cuda, x.requires_grad, x.is_leaf, x.is_sparse),
    "result_type": lambda x: torch.result_type(x, 1),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_is_the_totals(name: str) -> None:
    actual: list[Any] = []

    def function(camera: Tensor) -> Tensor:
        actual.append(METADATA[name](camera))
        return camera * 1.0

    result = decompose(function, {"camera": X})
    assert actual[0] == METADATA[name](X)
    assert {rule.kind for rule in result.coverage.values()} == {"product"}


@pytest.mark.parametrize(
    "make", ["zeros_like", "ones_like", "empty_like", "new_zeros", "new_full", "new_tensor"]
)
def test_new_tensors_of_the_same_shape_are_plain(make: str) -> None:
    def function(camera: Tensor) -> Tensor:
        new = {
            "new_zeros": lambda: camera.new_zeros(3, 4),
            "new_full": lambda: camera.new_full((3, 4), 2.0),
            "new_tensor": lambda: camera.new_tensor([[2.0] * 4] * 3),
        }.get(make, lambda: getattr(torch, make)(camera))()
        assert type(new) is Tensor
        assert new.shape == (3, 4)
        assert new.dtype == torch.float64
        return camera + torch.ones_like(new)

    result = decompose(function, {"camera": X})
    assert torch.equal(result.bias, torch.ones_like(X))


PLAIN_SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "expand_as": lambda mask, x: mask[:1].expand_as(x),
    "view_as": lambda mask, x: mask.view_as(x),
    "reshape_as": lambda mask, x: mask.flatten().reshape_as(x),
    "type_as": lambda mask, x: mask.float().type_as(x),
    "to": lambda mask, x: mask.float().to(x),
}


@pytest.mark.parametrize("name", PLAIN_SHAPES)
def test_a_plain_tensor_shaped_like_a_decomposed_one_stays_plain(name: str) -> None:
    mask = (normal(3, 4, seed=2) > 0).double()

    def function(camera: Tensor) -> Tensor:
        like = PLAIN_SHAPES[name](mask, camera)
        assert type(like) is Tensor
        return camera * like + like

    result = decompose(function, {"camera": X})
    torch.testing.assert_close(result.parts["camera"], X * PLAIN_SHAPES[name](mask, X))
    torch.testing.assert_close(result.bias, PLAIN_SHAPES[name](mask, X))


def test_every_constant_function_has_a_name_to_look_up() -> None:
    kinds = ("constant", "refused")
    rules = [(f, find_rule(f)) for f in registered_operators()]
    names = [function_name(f) for f, rule in rules if rule is not None and rule.kind in kinds]
    assert all(name.startswith(("torch.", "Tensor.")) for name in names)
    assert len(set(names)) == len(names)
