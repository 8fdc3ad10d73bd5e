"""The study of intervals of few objects."""

from __future__ import annotations

import pytest
from studies import few_objects as study


def test_one_object_in_each_class_has_no_width_and_many_hold_the_truth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--objects", "1", "--objects", "20", "--repeats", "30", "--resamples", "60"]
    assert study.main(arguments) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header == "| AUROC | 1 | 20 |"
    for row, truth in zip(rows, study.AUROCS, strict=True):
        name, few, many = map(float, row.strip("| ").split(" | "))
        assert (name, few) == (truth, 0.0)
        assert 0.75 < many <= 1.0
