"""Independent ways to work out what a rule must give, and the comparison with what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import Decomposition, decompose
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.decomposition.registry import function_name

#: Rounding of float64 sums over a few hundred terms of order 1.
TOLERANCE = 1e-12
MODALITIES = ("camera", "radar")
BIAS = "bias"
Expected = Mapping[str, Sequence[Tensor]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal values in float64."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")


HOMES = (torch, Tensor, torch.nn.functional, torch._C._nn, torch.special, torch.fft, torch.linalg)
PREFIXES = ("special_", "fft_", "linalg_")


def aliases(*names: str) -> list[Any]:
    """Every public torch function of these names: ``relu`` in ``torch``, ``Tensor``,
    ``nn.functional`` and so on; ``torch.Tensor.T.__get__``, a full name, is that one alone."""
    return list(dict.fromkeys(f for name in names for f in _aliases(name)))


def _aliases(name: str) -> list[Any]:
    if name.startswith("torch."):
        first, *path = name.removeprefix("torch.").split(".")
        actual = getattr(torch, first)
        for step in path:
            actual = getattr(actual, step)
        return [actual]
    short = next((name.removeprefix(p) for p in PREFIXES if name.startswith(p)), name)
    named = [getattr(home, key, None) for key in {name: 0, short: 0} for home in HOMES]
    return [f for f in named if callable(f) and (short == name or f.__name__ == name)]


def lookup(table: Mapping[str, Any], function: Any) -> Any:
    """A function's entry under its full name, or else under its last name."""
    full = function_name(function)
    name = getattr(function, "__name__", full)
    assert full in table or name in table, f"no oracle case covers {full}"
    return table.get(full, table.get(name))


class Sample:
    """Values of two modalities, one extra of each, and a constant, all of one shape."""

    def __init__(self, *shape: int, seed: int = 0):
        self.parts = {name: normal(*shape, seed=seed + i) for i, name in enumerate(MODALITIES)}
        self.extras = {m: [normal(*shape, seed=seed + 10 + i)] for i, m in enumerate(MODALITIES)}
        self.bias = normal(*shape, seed=seed + 20)

    @property
    def total(self) -> Tensor:
        return self.parts["camera"] + self.parts["radar"] + self.bias

    def rows(self) -> dict[str, Tensor]:
        """Every part by name; an extra is named ``camera+``."""
        extras = {f"{name}+": values[0] for name, values in self.extras.items()}
        return {**self.parts, **extras, BIAS: self.bias}

    def through(self, operation: Callable[[Tensor], Any], variant: str) -> Decomposition:
        """Decomposes ``operation(camera + radar + bias)``, and runs its program (eq. 14)."""

        def function(camera: Tensor, radar: Tensor) -> Any:
            return operation(camera + radar + self.bias)

        options: dict[str, Any] = {"extras": self.extras, "audit": True, "keep_maps": True}
        result = decompose(function, self.parts, variant, **options)
        assert_replayed(self.parts, result)
        return result


def assert_replayed(inputs: Mapping[str, Any], result: Decomposition) -> None:
    """The linearised network, run on one modality at a time, gives the parts."""
    streams = dict.fromkeys((*inputs, BIAS))
    for name in streams:
        wanted = _tensors(result.own_bias if name == BIAS else result.parts[name])
        for value, part in zip(_tensors(replayed(inputs, result, name)), wanted, strict=True):
            assert value.shape == part.shape, name
            scale = max(1.0, float(part.abs().max())) if part.numel() else 1.0
            torch.testing.assert_close(value, part, rtol=0, atol=10 * TOLERANCE * scale)


def replayed(inputs: Mapping[str, Any], result: Decomposition, name: str) -> Any:
    """One modality's part, or the bias, by the program alone."""
    program, layout = result.program, result.layout
    assert program is not None
    if name == BIAS:
        stream = Stream(None, layout.uniform_share)
        return program.collect(program.run({}, stream), True)
    stream = Stream(layout.modalities.index(name), layout.uniform_share)
    return program.collect(program.run(program.start({name: inputs[name]}), stream), False)


def rows_of(result: Decomposition) -> dict[str, list[Tensor]]:
    """Every part's tensors by name, as :meth:`Sample.rows` names them."""
    trees = {**result.parts, BIAS: result.bias}
    trees |= {f"{name}+": values[0] for name, values in result.extras.items() if values}
    return {name: _tensors(tree) for name, tree in trees.items()}


def _tensors(tree: Any) -> list[Tensor]:
    leaves = [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
    return [leaf for leaf in leaves if leaf.is_floating_point()]


def assert_rows(result: Decomposition, expected: Expected, tolerance: float = TOLERANCE) -> None:
    """Every part is what the oracle says, and the total is their sum."""
    actual = rows_of(result)
    assert actual.keys() == expected.keys()
    for name, tensors in expected.items():
        for value, wanted in zip(actual[name], tensors, strict=True):
            assert value.shape == wanted.shape, name
            torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance, msg=name)
    assert max((record.residual for record in result.operations), default=0.0) < TOLERANCE
    assert result.residual < TOLERANCE


def assert_total(result: Decomposition, plain: Any) -> None:
    """The total is bit for bit the plain result, with the same structure."""
    assert pytree.tree_structure(result.total) == pytree.tree_structure(plain)
    for value, wanted in zip(_tensors(result.total), _tensors(plain), strict=True):
        assert torch.equal(value, wanted)
        assert value.dtype == wanted.dtype


def affine_rows(
    function: Callable[..., Any], parts: Mapping[str, Tensor], extras: Mapping[str, list[Tensor]]
) -> dict[str, list[Tensor]]:
    """Parts of a jointly affine function through its dense Jacobian: J_m x_m; the rest is bias."""
    names = list(parts)
    values = tuple(parts.values())

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        copies = {name: t.clone() for name, t in zip(names, tensors, strict=True)}
        return tuple(_tensors(function(**copies)))

    jacobians = torch.autograd.functional.jacobian(run, values)  # [output][input]
    outputs = [t.detach() for t in run(*values)]
    rows = {
        name: [_times(jacobian[i], parts[name]) for jacobian in jacobians]
        for i, name in enumerate(names)
    }
    rows[BIAS] = [y - sum(rows[name][j] for name in names) for j, y in enumerate(outputs)]
    for i, name in enumerate(names):
        if extras.get(name):
            rows[f"{name}+"] = [_times(jacobian[i], extras[name][0]) for jacobian in jacobians]
    return rows


def directional_rows(
    function: Callable[..., Any], parts: Mapping[str, Tensor], extras: Mapping[str, list[Tensor]]
) -> dict[str, list[Tensor]]:
    """The same without autograd, which refuses some writes to views: J_m x_m as a difference.

    The step is small enough for no mask to flip, and costs four digits.
    """
    step = 2.0**-12

    def run(moved: str = "", along: Tensor | None = None) -> Tensor:
        copies = {name: x.clone() for name, x in parts.items()}
        if along is not None:
            copies[moved] += step * along
        return function(**copies)

    total = run()
    rows = {name: [(run(name, x) - total) / step] for name, x in parts.items()}
    rows[BIAS] = [total - sum(rows[name][0] for name in parts)]
    for name, riding in extras.items():
        rows[f"{name}+"] = [(run(name, riding[0]) - total) / step]
    return rows


def _times(jacobian: Tensor, x: Tensor) -> Tensor:
    return torch.tensordot(jacobian, x, dims=x.dim())
