"""What must hold for every network: eq. 7, eq. 8 and the separation property."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from hypothesis import given, settings
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import Decomposition, Variant, decompose, decompose_bias
from tests.support.random_networks import Case, cases

#: Slow machines must not fail a test, and the same networks are drawn in every run.
RUNS = settings(max_examples=20, deadline=None, derandomize=True)


def run(case: Case, inputs: dict[str, Any] | None = None, **options: Any) -> Decomposition:
    return decompose(case.network, inputs or case.inputs, case.variant, **options)


def leaves(tree: Any) -> list[Tensor]:
    return pytree.tree_leaves(tree)


def assert_same(actual: Any, wanted: Any, tolerance: float = 1e-11) -> None:
    """Equal to rounding, relative to the largest value (batched kernels round otherwise)."""
    for a, b in zip(leaves(actual), leaves(wanted), strict=True):
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


@RUNS
@given(cases())
def test_total_is_the_plain_call_and_parts_sum_to_it(case: Case) -> None:
    with torch.no_grad():
        plain = case.network(**pytree.tree_map(torch.clone, case.inputs))
    before = [leaf.clone() for leaf in leaves(case.inputs)]
    result, unobserved = run(case, audit=True), run(case)
    for name in (*case.inputs, None):  # an audit carries concatenations out at once
        rows = [r.bias if name is None else r.parts[name] for r in (result, unobserved)]
        assert_same(*rows)
    assert pytree.tree_structure(result.total) == pytree.tree_structure(plain)
    for a, b in zip(leaves(result.total), leaves(plain), strict=True):
        assert torch.equal(a, b)
    assert max(record.residual for record in result.operations) < 1e-12
    assert result.residual < 1e-12
    sums = [sum(values) for values in zip(*map(leaves, result.parts.values()), strict=True)]
    for a, b, total in zip(sums, leaves(result.bias), leaves(plain), strict=True):
        torch.testing.assert_close(
            a + b, total, rtol=0, atol=1e-12 * max(1, float(total.abs().max()))
        )
    assert all(torch.equal(a, b) for a, b in zip(before, leaves(case.inputs), strict=True))


@RUNS
@given(cases())
def test_extras_do_not_touch_anything_else(case: Case) -> None:
    alone, together = run(case), run(case, extras=case.extras)
    for a, b in zip(leaves(alone.total), leaves(together.total), strict=True):
        assert torch.equal(a, b)
    assert_same(together.bias, alone.bias)
    for name in case.inputs:
        assert_same(together.parts[name], alone.parts[name])
        only = run(case, extras={name: case.extras[name]})
        assert_same(together.extras[name][0], only.extras[name][0])


@RUNS
@given(cases())
def test_an_extra_equal_to_the_input_is_the_clean_part(case: Case) -> None:
    result = run(case, extras={name: [tree, tree] for name, tree in case.inputs.items()})
    for name in case.inputs:
        for extra in result.extras[name]:
            assert_same(extra, result.parts[name])


@RUNS
@given(cases())
def test_parts_are_affine_in_the_extra(case: Case) -> None:
    """At one operating point everything is linear: the middle of two extras gives the middle."""

    def middle(a: Any, b: Any) -> Any:
        return pytree.tree_map(lambda x, y: (x + y) / 2, a, b)

    halves = {
        name: [case.extras[name][0], middle(tree, case.extras[name][0])]
        for name, tree in case.inputs.items()
    }
    result = run(case, extras=halves)
    for name in case.inputs:
        end, half = result.extras[name]
        assert_same(half, middle(result.parts[name], end))


@RUNS
@given(cases())
def test_a_constant_offset_moves_only_its_modality(case: Case) -> None:
    """Perturbing one modality through extras leaves every other part as it is (tables 1 and 2)."""
    name = next(iter(case.inputs))
    perturbed = pytree.tree_map(lambda x: x + 3.0, case.inputs[name])
    result, clean = run(case, extras={name: [perturbed]}), run(case)
    for other in list(case.inputs)[1:]:
        assert_same(result.parts[other], clean.parts[other])
        assert not result.extras[other]


@RUNS
@given(cases())
def test_the_bias_can_be_followed_by_itself(case: Case) -> None:
    """Where all constants go to the bias and no two parts are multiplied."""
    variant = replace(Variant.parse(case.variant), batch_norm="identity", activation="identity")
    variant = replace(variant, norm="ratio" if variant.norm == "ratio" else "identity")
    wanted = decompose(case.network, case.inputs, variant)
    actual = decompose_bias(case.network, case.inputs, variant)
    assert_same(actual.bias, wanted.bias)
    for a, b in zip(leaves(actual.total), leaves(wanted.total), strict=True):
        assert torch.equal(a, b)
