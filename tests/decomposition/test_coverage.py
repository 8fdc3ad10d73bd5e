"""``explain_coverage``: everything that meets a decomposed tensor, and every gap at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli import decompose, explain_coverage, register_rule
from lmd_cli.decomposition import Coverage, InputError, NoRuleError, unregister_rule
from lmd_cli.decomposition.maps import slope
from tests.support.rule_oracle import normal

INPUTS = {"camera": normal(2, 3, 4), "radar": normal(2, 3, 4, seed=1)}


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(x.numpy() ** 3)


class Step(nn.Module):
    """One function as a module, with a BatchNorm that nobody set to evaluation."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


def through_numpy(x: Tensor) -> Tensor:
    return x + torch.from_numpy(x.numpy())


def behind_its_back(x: Tensor) -> Tensor:
    y = x * 2.0
    y.detach().mul_(2.0)
    return y + 1.0


def in_place(x: Tensor) -> Tensor:
    y = x * 1.0
    y.digamma_()
    return y


GAPS: dict[str, tuple[Callable[[Tensor], Tensor], str, str, str]] = {
    "unknown": (torch.lgamma, "torch.lgamma", "no rule for", "@register_rule(torch.lgamma)"),
    "refused": (
        lambda x: torch.linalg.inv(x @ x.mT) @ x,
        "torch.linalg.inv",
        "not linear in the matrix",
        "@register_rule(torch.ops.aten.linalg_inv_ex, override=True)",
    ),
    "arguments": (
        lambda x: F.layer_norm(x, (4,), x[0, 0]),
        "torch.nn.functional.layer_norm",
        "its weight carries parts",
        "@register_rule(torch.native_layer_norm, kind='normalisation', override=True)",
    ),
    "custom": (lambda x: Cube.apply(x), "Cube", "custom autograd function", "@register_rule(Cube)"),
    "outside torch": (through_numpy, "torch.Tensor.numpy", "values leave torch", ""),
    "hidden write": (behind_its_back, "torch.Tensor.mul_", "past the parts", ""),
    "in place": (
        in_place,
        "torch.Tensor.digamma_",
        "no rule for",
        "@register_rule(torch.digamma)",
    ),
    "random": (
        lambda x: F.dropout(x, 0.5, True),
        "torch.nn.functional.dropout",
        "it is random; call .eval()",
        "@register_rule(torch.nn.functional.dropout)",
    ),
    "dropped": (
        lambda x: x.detach() * 2.0,
        "Step",
        "its output depends on the features",
        "plain_modules=['8']",
    ),
}


def all_gaps() -> nn.Sequential:
    return nn.Sequential(*(Step(GAPS[name][0]) for name in GAPS), nn.LayerNorm(4)).double().eval()


def explained(network: nn.Module) -> Coverage:
    return explain_coverage(lambda camera, radar: network(camera + radar), INPUTS, root=network)


def test_every_gap_is_found_in_one_run() -> None:
    coverage = explained(all_gaps())
    actual = {(row.module, row.operation): row for row in coverage.gaps}
    assert len(actual) == len(GAPS)
    for i, (_, operation, reason, register) in enumerate(GAPS.values()):
        name = operation.split(".")[-1]
        row = next(r for (m, o), r in actual.items() if m == str(i) and o.split(".")[-1] == name)
        assert reason in row.reason
        assert row.register.replace("test_coverage.", "") == register
        assert row.kind == "gap"
    with pytest.raises(NoRuleError, match="lgamma"):
        decompose(lambda camera, radar: all_gaps()(camera + radar), INPUTS)


def test_what_has_a_rule_is_listed_with_its_equation_and_its_calls() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4)).double().eval()
    coverage = explain_coverage(
        lambda camera, radar: network(network(camera + radar)) > 0.1 * camera, INPUTS, root=network
    )
    rows = {(r.module, r.operation.split(".")[-1]): r for r in coverage.rows}
    assert rows["0", "linear"].kind == "linear"
    assert "eq. 3" in rows["0", "linear"].equation
    assert rows["0", "linear"].calls == 2
    assert rows["2", "layer_norm"].equation == "eq. 11"
    assert rows["", "gt"].kind == "constant"
    assert [r.operation for r in coverage.gaps] == ["the output"]  # a comparison carries nothing


def test_a_network_without_gaps() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.GELU()).double()
    coverage = explained(network)
    assert coverage.gaps == ()
    lines = str(coverage).splitlines()
    assert lines[0].split() == ["module", "operation", "calls", "kind", "equation"]
    assert len(lines) == len(coverage.rows) + 1
    assert "torch.nn.functional.gelu" in lines[-1]


def test_the_table_ends_with_the_gaps_and_what_would_fill_them() -> None:
    text = str(explained(all_gaps()))
    assert "gap: no rule for torch.lgamma" in text
    assert "@register_rule(torch.lgamma)" in text


def test_training_mode_is_a_gap_and_the_network_stays_as_it_was() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(4, 4)).double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    coverage = explained(network)
    assert [(r.module, r.operation.split(".")[-1]) for r in coverage.gaps] == [
        ("0", "BatchNorm"),
        ("1", "dropout"),
    ]
    assert all("eval()" in row.reason for row in coverage.gaps)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_scripted_code_is_listed() -> None:
    network = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(4, 4))), nn.ReLU()).double()
    coverage = explained(network)
    assert coverage.gaps == ()
    kinds = [r.kind for r in coverage.rows if r.kind != "structure"]
    assert kinds == ["sum", "linear", "activation"]


class Counts(nn.Module):
    """Keeps a running mean, counts its calls, and swaps a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4).double())
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.weight = nn.Parameter(torch.ones(4).double())

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.mean((0, 1))
        self.train(False)
        return x * self.weight + torch.rand(4).double()


def test_the_network_and_the_generator_are_as_before() -> None:
    network = nn.Sequential(Counts(), nn.InstanceNorm1d(3, track_running_stats=True)).double()
    network.append(nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ids = {name: id(value) for name, value in network.named_buffers()}
    generator = torch.get_rng_state()
    coverage = explained(network)
    assert {r.operation.rpartition(".")[2] for r in coverage.gaps} == {"InstanceNorm", "dropout"}
    assert all(module.training for module in network.modules())
    assert {name: id(value) for name, value in network.named_buffers()} == ids
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_registered_rule_fills_the_gap() -> None:
    network = nn.Sequential(Step(lambda x: Cube.apply(x))).double()

    @register_rule(Cube, kind="activation", equation="eq. 9")
    def rule(call: Any, x: Tensor) -> Any:
        return call.function(x), slope(x**2)

    try:
        coverage = explained(network)
        assert coverage.gaps == ()
        assert coverage.rows[-1].operation.endswith("Cube")
        assert coverage.rows[-1].equation == "eq. 9"
    finally:
        unregister_rule(Cube)


def test_bad_inputs_are_refused_as_by_decompose() -> None:
    with pytest.raises(InputError, match="expected a floating-point tensor"):
        explain_coverage(lambda camera: camera, {"camera": torch.ones(2).long()})
    with pytest.raises(InputError, match="matches no module"):
        explain_coverage(nn.ReLU(), {"input": normal(2)}, rules={"missing": {"norm": "identity"}})
