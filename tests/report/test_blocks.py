"""Blocks of a network's operations."""

from __future__ import annotations

from lmd_cli.report.blocks import block_names, drawn_operations, stretches
from lmd_cli.report.page.svg_charts import layer_chart


def test_stretches_of_one_name() -> None:
    assert stretches(["a", "a", "b", "a"]) == [(0, 2), (2, 3), (3, 4)]


def test_a_survey_without_operations_has_no_block() -> None:
    assert stretches(block_names([])) == []
    assert drawn_operations([]) == []
    assert layer_chart([], ["camera", "radar", "bias"]).startswith("<svg")
