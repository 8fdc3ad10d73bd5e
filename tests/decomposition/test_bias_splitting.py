"""Appendix C for two, three and four modalities against its scalar cases, zeros included."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from lmd_cli.decomposition.bias_splitting import ratio_shares, sum_shares
from tests.support.appendix_c import ratio_shares_of_many, shares, sum_shares_of_many
from tests.support.rule_oracle import normal

RULES = {"sum": sum_shares, "ratio": ratio_shares}
#: Every pattern of signs is met, at different magnitudes.
VALUES = (-2.0, -0.5, 0.0, 0.25, 3.0)


@pytest.mark.parametrize("split", RULES)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_shares_are_the_papers_cases(split: str, count: int) -> None:
    neurons = torch.tensor(list(product(VALUES, repeat=count + 1)), dtype=torch.float64)
    modalities, bias = neurons[:, :-1].T, neurons[:, -1]
    expected = [shares(neuron[:-1], neuron[-1], split) for neuron in neurons.tolist()]
    actual = RULES[split](modalities, bias)
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=torch.float64).T, rtol=1e-15, atol=1e-15
    )


@pytest.mark.parametrize("split", RULES)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_shares_sum_to_one_or_nothing(split: str, count: int) -> None:
    sums = RULES[split](normal(count, 500), normal(500, seed=1)).sum(0)
    given = sums > 0.5
    assert 0 < given.sum() < 500
    torch.testing.assert_close(sums, given.double(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("split", RULES)
def test_generalisation_is_the_paper_for_two(split: str) -> None:
    many = {"sum": sum_shares_of_many, "ratio": ratio_shares_of_many}[split]
    for c, r, b in product(VALUES, repeat=3):
        assert many([c, r], b) == pytest.approx(shares([c, r], b, split), abs=1e-15)


def test_tiny_values_keep_shares_finite() -> None:
    tiny = torch.full((2, 1), 1e-310, dtype=torch.float64)
    actual = ratio_shares(tiny, torch.tensor([1.0], dtype=torch.float64))
    assert actual.isfinite().all()
    assert (actual >= 0).all()
    assert (actual.sum(0) <= 1).all()
