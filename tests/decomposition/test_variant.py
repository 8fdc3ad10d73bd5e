"""Variants: their names and fields."""

from __future__ import annotations

from typing import Any

import pytest

from lmd_cli.decomposition import InputError, Variant, variant_names
from tests.decomposition.test_api import both


@pytest.mark.parametrize("name", variant_names())
def test_variant_names_are_read_back(name: str) -> None:
    assert Variant.parse(name).name == str(Variant.parse(name)) == name
    assert Variant.parse(name.upper()) == Variant.parse(Variant.parse(name))


def test_there_are_eighteen_variants() -> None:
    assert len(set(variant_names())) == len(variant_names()) == 18
    assert variant_names()[0] == "identity-ratio"


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("identity-rato", "identity-ratio"),
        ("unifrom-identity", "uniform-identity"),
        ("identity-ratio-summ", "identity-ratio-sum"),
        ("identityratio", "identity-ratio"),
    ],
)
def test_a_misspelt_variant_is_suggested(typo: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"'{typo}' is not a variant; did you mean '{meant}'"):
        both(lambda camera, radar: camera, variant=typo)


@pytest.mark.parametrize("name", ["", "ratio-identity", "identity", "identity-ratio-sum-sum", 3])
def test_a_wrong_variant_is_told_what_there_is(name: Any) -> None:
    with pytest.raises(InputError, match=r"identity\|uniform.*ratio\|identity\|uniform"):
        both(lambda camera, radar: camera, variant=name)


@pytest.mark.parametrize("field", ["batch_norm", "norm", "activation"])
def test_variants_check_their_fields(field: str) -> None:
    with pytest.raises(ValueError, match=f"variant: {field} must be one of"):
        Variant(**{field: "nonsense"})
