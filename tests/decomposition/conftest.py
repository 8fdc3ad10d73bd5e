"""Fixtures of the tests with networks of other libraries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lmd_cli.runtime.compute import set_switches


@pytest.fixture
def one_algorithm() -> None:
    """cuDNN may else add in another order at every call."""
    set_switches(tf32=False)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks that ask for single precision, by name or by default, compute in double."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    for name in ("float", "float32"):
        monkeypatch.setattr(torch, name, torch.float64)
    for name in ("cfloat", "complex64"):
        monkeypatch.setattr(torch, name, torch.complex128)
    yield
    torch.set_default_dtype(usual)
