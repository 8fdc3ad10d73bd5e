"""No rule makes a tensor elsewhere than its inputs are.

There is no GPU where these tests usually run. So torch's default device is set to ``meta``: a
tensor that is made without saying where would land there, and not beside the CPU's.
tests/test_cuda.py runs on a GPU where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.linearised.replay import replay
from tests.decomposition.test_python_use import IMAGES, NETWORK
from tests.support.closed_forms import CLOSED_FORMS
from tests.support.joining_cases import CASES as JOINING
from tests.support.linear_cases import LINEAR, STRUCTURE
from tests.support.rule_oracle import Sample, aliases

TABLE = STRUCTURE | LINEAR
VARIANTS = ("identity-ratio-ratio-frozen", "uniform-uniform-taylor-taylor", "identity-ratio-secant")
#: Not for the CPU; and takes a constant from anywhere, which its case makes without saying where.
ELSEWHERE = ("cuda", "fill_")


def stays(function: Callable[..., Any], inputs: dict[str, Tensor], variant: str) -> None:
    own = {name: x.clone() for name, x in inputs.items()}
    with torch.device("meta"):
        result = decompose(function, own, variant, keep_maps=True)
        again = replay(result, own)
    trees = (result.total, *result.parts.values(), result.bias, *again.values())
    assert {x.device.type for x in pytree.tree_leaves(trees) if isinstance(x, Tensor)} == {"cpu"}


def pinned(call: Callable[..., Any], parts: dict[str, Tensor]) -> bool:
    """Whether the case itself runs: some make constants without saying where."""
    with torch.device("meta"):
        try:
            call(*(x.clone() for x in parts.values()))
        except RuntimeError:
            return False
    return True


def calls() -> Iterator[tuple[str, tuple[int, ...], Callable[..., Any]]]:
    """One alias of every function in the oracle's tables."""
    for name in {**TABLE, **JOINING, **CLOSED_FORMS}:
        if name in ELSEWHERE or not aliases(name):
            continue
        f = aliases(name)[0]
        for shape, call in TABLE.get(name, ())[:2]:
            yield name, shape, lambda c, r, f=f, call=call: call(f, c + r)
        for case in JOINING.get(name, ())[:2]:
            yield name, (2, 3, 4), lambda c, r, f=f, case=case: case(f, c, r)
        for form in CLOSED_FORMS.get(name, ())[:2]:
            yield name, (2, 3, 4), lambda c, r, f=f, form=form: form.call(f, c + r + 1.0, r - c)


def test_rules_stay_on_the_device_of_their_inputs() -> None:
    names = set()
    for name, shape, call in calls():
        parts = Sample(*shape).parts
        if not pinned(call, parts):
            continue
        names.add(name)
        stays(lambda camera, radar: call(camera, radar), parts, VARIANTS[0])  # noqa: B023
    assert len(names) > 150


@pytest.mark.parametrize("variant", VARIANTS)
def test_norms_activations_attention_and_resampling_do_too(variant: str) -> None:
    stays(NETWORK, IMAGES, variant)


def test_a_tensor_that_is_made_elsewhere_would_be_seen() -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        stays(
            lambda camera, radar: camera + radar + torch.zeros(2),
            Sample(3, 2).parts,
            "identity-ratio",
        )
