"""Which of torch's functions have a rule, which are refused with a reason, and which are left out
on purpose: nothing that torch's override protocol knows is forgotten silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import get_testing_overrides, resolve_name

from lmd_cli.decomposition import find_rule

LEFT_OUT = Path(__file__).with_name("left_out.txt")


def left_out() -> set[str]:
    """Names that are left out, all reasons together."""
    lines = LEFT_OUT.read_text().splitlines()
    return {name for line in lines if line[:1] not in ("#", "[") for name in line.split()}


def base_name(function: Any) -> str:
    """``relu`` for ``torch.nn.functional.relu``; empty where torch does not name it."""
    name = resolve_name(function) or ""
    return name.removesuffix(".__get__").rpartition(".")[2]


def ruled() -> set[str]:
    """Functions whose parts go on, or that are constants; in-place twins count once."""
    found = ((base_name(f), find_rule(f)) for f in get_testing_overrides())
    skipped = (None, "refused", "metadata")
    return {name.strip("_") for name, rule in found if getattr(rule, "kind", None) not in skipped}


@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="the list is torch 2.13's")
def test_every_function_has_a_rule_or_is_left_out_for_a_reason() -> None:
    unruled = {base_name(f) for f in get_testing_overrides() if find_rule(f) is None} - {""}
    assert unruled - left_out() == set()
    assert left_out() - unruled == set()


def test_the_breadth_that_the_project_promises() -> None:
    assert len(ruled()) > 300


def test_refused_functions_say_what_to_do_instead() -> None:
    refused = [find_rule(f) for f in (torch.lstm, torch.linalg.inv, torch.bernoulli, torch.atan2)]
    assert all(rule is not None and rule.kind == "refused" and rule.equation for rule in refused)
