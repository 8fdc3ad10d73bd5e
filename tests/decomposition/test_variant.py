"""Variants: their names and fields."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from lmd_cli.decomposition import InputError, Variant, variant_names
from lmd_cli.decomposition.variant import (
    ACTIVATION_RULES,
    BATCH_NORM_RULES,
    NORM_RULES,
    SOFTMAX_RULES,
)
from tests.decomposition.test_api import both

#: What says for which operations the derivative is taken.
TAYLOR = ("taylor-frozen", "identity-taylor", "taylor-taylor")


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
        ("identity-ratio-shaply", "identity-ratio-shapley"),
        ("uniform-identity-reveel", "uniform-identity-reveal"),
        ("identity-ratio-tailor", "identity-ratio-taylor-frozen"),
        ("coalition", "coalitions"),
    ],
)
def test_a_misspelt_variant_is_suggested(typo: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"'{typo}' is not a variant; did you mean '{meant}'"):
        both(lambda camera, radar: camera, variant=typo)


@pytest.mark.parametrize("name", ["", "ratio-identity", "identity", "identity-ratio-sum-sum", 3])
def test_a_wrong_variant_is_told_what_there_is(name: Any) -> None:
    with pytest.raises(InputError, match=r"identity\|uniform.*ratio\|identity\|uniform"):
        both(lambda camera, radar: camera, variant=name)


@pytest.mark.parametrize("both_words", ["shapley-sum", "ratio-reveal", "rescale-taylor-frozen"])
def test_two_rules_for_activations_are_named(both_words: str) -> None:
    first, second, *_ = both_words.split("-")
    with pytest.raises(InputError) as caught:
        both(lambda camera, radar: camera, variant=f"identity-ratio-{both_words}")
    said = f": {first} and {second} are rules for activations, of which it has one"
    assert f"'identity-ratio-{both_words}' is not a variant{said}" in str(caught.value)


@pytest.mark.parametrize("start", ["identity-ratio", "Uniform-Identity"])
def test_taylor_alone_says_neither_activations_nor_softmax(start: str) -> None:
    with pytest.raises(InputError) as caught:
        both(lambda camera, radar: camera, variant=f"{start}-taylor")
    clear = [f"{start.lower()}-{words}" for words in TAYLOR]
    for name, of in zip(clear, ("activations", "attention weights", "both"), strict=True):
        assert re.search(rf"{name} (takes the derivative )?for {of}", str(caught.value))
    assert [Variant.parse(name).name for name in clear] == clear
    rules = [(v.activation, v.softmax) for v in map(Variant.parse, clear)]
    assert rules == [("taylor", "frozen"), ("identity", "taylor"), ("taylor", "taylor")]


def test_every_name_is_read_back_and_says_which_rule_is_taylor() -> None:
    """No name ends with taylor as its third word."""
    for rules in product(BATCH_NORM_RULES, NORM_RULES, ACTIVATION_RULES[:-1], SOFTMAX_RULES):
        variant = Variant(*rules)
        assert Variant.parse(variant.name) == variant
        assert variant.name.split("-")[2:] != ["taylor"]


@pytest.mark.parametrize("field", ["batch_norm", "norm", "activation"])
def test_variants_check_their_fields(field: str) -> None:
    with pytest.raises(ValueError, match=f"variant: {field} must be one of"):
        Variant(**{field: "nonsense"})
