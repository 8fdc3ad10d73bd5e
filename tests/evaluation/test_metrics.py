"""PCC and MSE against scipy and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr

from lmd_cli.evaluation.metrics import mse, pcc, vehicle_counts

maps = arrays(np.float64, (2, 37), elements=st.floats(-1e3, 1e3, width=32))


@given(maps)
def test_pcc_is_scipys(pair: np.ndarray) -> None:
    a, b = pair
    if np.ptp(a) < 1e-3 or np.ptp(b) < 1e-3:
        return
    expected = pearsonr(a, b).statistic
    assert pcc(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, abs=1e-9)


@given(maps)
def test_mse_is_numpys(pair: np.ndarray) -> None:
    a, b = pair
    expected = float(np.mean((a - b) ** 2))
    assert mse(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_pcc_does_not_depend_on_scale(scale: float) -> None:
    a, b = torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(0)).double()
    assert pcc(a * scale, b / scale) == pytest.approx(pcc(a, b), abs=1e-12)


def test_a_constant_map_has_no_correlation() -> None:
    flat, other = torch.full((4, 4), 0.1), torch.arange(16.0).reshape(4, 4)
    assert math.isnan(pcc(flat, other))
    assert math.isnan(pcc(other, flat))
    assert mse(flat, flat) == 0.0


def test_a_map_with_itself_and_its_negative() -> None:
    a = torch.randn(1, 1, 50, 50, generator=torch.Generator().manual_seed(1))
    assert pcc(a, a) == pytest.approx(1.0, abs=1e-12)
    assert pcc(a, a) <= 1.0
    assert pcc(a, -a) == pytest.approx(-1.0, abs=1e-12)


def test_vehicle_counts_ignore_invalid_cells() -> None:
    logits = torch.tensor([[1.0, -1.0, 2.0, 0.0, 3.0]])
    truth = torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0]])
    valid = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    assert vehicle_counts(logits, truth, valid) == (1, 4)
