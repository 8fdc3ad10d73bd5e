"""``scripts/benchmarks/gpu.py`` where there is no GPU."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "gpu.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cuda"], "no CUDA device; --device cpu"),
        (["--device", "cpu", "--samples", "4"], "the first 4 samples do not count"),
    ],
)
def test_what_cannot_be_measured_is_said(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_each_precision_with_graphs_and_without() -> None:
    ways = runpy.run_path(str(SCRIPT))["ways"](["float32", "bf16"])
    assert [(w.precision, w.tf32, w.graphs) for w in ways] == [
        (precision, tf32, graphs)
        for precision, tf32 in (("float32", False), ("float32", True), ("bf16", True))
        for graphs in (False, True)
    ]
    assert ways[-1].settings == [
        "compute.precision=bf16",
        "compute.tf32=true",
        "compute.cuda_graphs=true",
    ]
