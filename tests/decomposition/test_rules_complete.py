"""Every registered rule has an oracle: those that no other table covers, and that none is missed.

The tests of each kind go through the registry and fail for a function that their table does not
have. Softmax and statistics are here; constants, which have no parts, are in test_constants.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from closed_forms import ELSEWHERE
from joining_cases import CASES as JOINING
from linear_cases import LINEAR, STRUCTURE
from rule_oracle import BIAS, Sample, assert_rows, assert_total, functions_of_kind, lookup
from test_rules_activation import calls as calls_of_activation
from test_rules_normalisation import test_every_norm_has_a_test as every_norm
from test_rules_selection import ORDERED
from torch import Tensor

from lmd_cli.decomposition import register_rule, unregister_rule
from lmd_cli.decomposition.registry import KINDS, function_name

#: How each function is called, on values that are positive for ``rsqrt``.
CALLS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "softmax": lambda f, x: f(x, 1),
    "logsumexp": lambda f, x: f(x, 1),
    "special_softmax": lambda f, x: f(x, 1),
    "special_logsumexp": lambda f, x: f(x, 1),
    "reciprocal": lambda f, x: f(x + 9.0),
    "rsqrt": lambda f, x: f(x + 9.0),
    "reciprocal_": lambda f, x: f(x + 9.0),
    "rsqrt_": lambda f, x: f(x + 9.0),
}


@pytest.mark.parametrize("function", functions_of_kind("softmax", "statistic"), ids=function_name)
def test_all_bias_or_the_jacobian(function: Any) -> None:
    """Frozen weights and statistics are bias; under ``taylor`` a part is J h, J by autograd."""
    call, sample = lookup(CALLS, function), Sample(3, 4)
    total = call(function, sample.total)
    result = sample.through(lambda x: call(function, x), "identity-ratio")
    assert_total(result, total)
    none = {k: [torch.zeros_like(total)] for k in sample.rows() if k != BIAS}
    assert_rows(result, {**none, BIAS: [total]})
    if function in functions_of_kind("statistic"):
        return
    jacobian: Any = torch.autograd.functional.jacobian(lambda x: call(function, x), sample.total)
    rows = {k: [torch.tensordot(jacobian, h, 2)] for k, h in sample.rows().items() if k != BIAS}
    rows[BIAS] = [total - rows["camera"][0] - rows["radar"][0]]
    assert_rows(sample.through(lambda x: call(function, x), "identity-ratio-taylor"), rows)


def nothing(session: Any, func: Any, x: Any) -> Any:
    raise AssertionError("never called")


@contextmanager
def forgotten(kind: Any) -> Iterator[Any]:
    """A function that somebody gave a rule of this kind, and no oracle."""
    register_rule(torch.lgamma, kind=kind)(nothing)
    try:
        yield torch.lgamma
    finally:
        unregister_rule(torch.lgamma)


#: What the tests of each kind do first with every function of that kind.
COVERING: dict[str, Callable[[Any], Any]] = {
    "structure": lambda f: lookup(STRUCTURE | LINEAR, f),
    "linear": lambda f: lookup(STRUCTURE | LINEAR, f),
    "sum": lambda f: lookup(JOINING, f),
    "product": lambda f: lookup(JOINING, f),
    "quotient": lambda f: lookup(JOINING, f),
    "composite": lambda f: lookup(JOINING, f),
    "activation": calls_of_activation,
    "selection": lambda f: lookup(ORDERED, f),
    "normalisation": lambda f: every_norm(),
    "softmax": lambda f: lookup(CALLS, f),
    "statistic": lambda f: lookup(CALLS, f),
}


@pytest.mark.parametrize("kind", COVERING)
def test_a_rule_without_an_oracle_fails(kind: str) -> None:
    with forgotten(kind) as function:
        assert function in functions_of_kind(kind)
        with pytest.raises(AssertionError, match="no oracle case covers"):
            COVERING[kind](function)


def test_no_kind_of_rule_and_no_composite_is_left_out() -> None:
    assert {*COVERING, "constant", "metadata", "refused"} == set(KINDS)
    here = Path(__file__).parent
    tests = "".join(path.read_text() for path in here.glob("test_*.py") if path != Path(__file__))
    otherwise = {  # what runs them under another name
        "CheckpointFunction": "test_checkpointed_modules",
        "multi_head_attention_forward": "nn.MultiheadAttention",
        "special_log_softmax": "special.log_softmax",
        "__rdiv__": "1.0 / x",
    }
    assert [name for name in ELSEWHERE if otherwise.get(name, name) not in tests] == []
