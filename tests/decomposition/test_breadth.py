"""Which of torch's functions are followed, which are refused with a reason, and which are left out
on purpose: nothing that torch's override protocol knows is forgotten silently."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from torch.overrides import get_testing_overrides, resolve_name

from lmd_cli.decomposition import find_rule
from lmd_cli.decomposition.registry import operator_of
from lmd_cli.decomposition.tracing.modes import DETACHING, METADATA, OUTWARD
from lmd_cli.decomposition.tracing.operators import Operator, operator

LEFT_OUT = Path(__file__).with_name("left_out.txt")


def left_out() -> set[str]:
    """Names that are left out, all reasons together."""
    lines = LEFT_OUT.read_text().splitlines()
    return {name for line in lines if line[:1] not in ("#", "[") for name in line.split()}


def base_name(function: Any) -> str:
    """``relu`` for ``torch.nn.functional.relu``; empty where torch does not name it."""
    name = resolve_name(function) or ""
    return name.removesuffix(".__get__").rpartition(".")[2]


def overloads(function: Any) -> list[Operator]:
    """What the dispatcher sees of a function."""
    packet = operator_of(function)
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return []
    return [operator(getattr(packet, name)) for name in packet.overloads()]


def is_composite(op: Operator) -> bool:
    """Whether torch takes it apart before it is dispatched."""
    try:
        return op.composite
    except RuntimeError:  # scripted code's own
        return False


def how(function: Any) -> str:
    """How a function is followed, empty if it is not."""
    if function in METADATA | OUTWARD | DETACHING:
        return "metadata"
    ops = overloads(function)
    twins = [op.functional for op in ops if op.written and op.functional is not None]
    rules = [find_rule(f) for f in (function, *(op.function for op in (*ops, *twins)))]
    kinds = [rule.kind for rule in rules if rule is not None]
    if kinds:
        return kinds[0]
    if isinstance(function, FunctionType) or any(map(is_composite, (*ops, *twins))):
        return "made of others"
    if any(op.view or op.factory or op.metadata_write or op.gives_numbers for op in ops):
        return "structure"
    return ""


@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="the list is torch 2.13's")
def test_every_function_is_followed_or_left_out_for_a_reason() -> None:
    names = {base_name(f) for f in get_testing_overrides() if not how(f)} - {""}
    assert names - left_out() == set()
    assert left_out() - names == set()


def test_the_breadth_that_the_project_promises() -> None:
    skipped = ("", "refused", "metadata")
    followed = {base_name(f).strip("_") for f in get_testing_overrides() if how(f) not in skipped}
    assert len(followed) > 300


@pytest.mark.parametrize(
    "function", [torch.linalg.eigh, torch.linalg.inv, torch.bernoulli, torch.atan2]
)
def test_refused_functions_say_what_to_do_instead(function: Any) -> None:
    assert how(function) in ("refused", "made of others")
    if how(function) == "refused":
        ops = [op.function for op in overloads(function)]
        rules = [rule for f in (function, *ops) if (rule := find_rule(f)) is not None]
        assert all(rule.equation for rule in rules)
