"""A run whose numbers are not exact stops, says where it begins, and is not finished."""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lmd_cli.config.loading import load_config
from lmd_cli.decomposition import Variant, decompose, register_rule, unregister_rule
from lmd_cli.decomposition.linearised.partial import first_deviation
from lmd_cli.decomposition.maps import Affine, slope
from lmd_cli.errors import RunError
from lmd_cli.evaluation import verification as predict
from lmd_cli.evaluation.tolerances import (
    DOUBLE,
    HALF,
    SINGLE,
    large_parts_message,
    locate_deviation,
    magnification,
    require_within,
    tolerances_of,
    warn_of_large_parts,
)
from lmd_cli.networks import SimpleBEV
from lmd_cli.workflows.evaluate import evaluate

RELU = torch.ops.aten.relu


@pytest.fixture
def wrong_relu() -> Iterator[None]:
    """A rule that loses a hundredth of every part."""

    @register_rule(RELU, kind="activation", equation="wrong", override=True)
    def relu(call: Any, input: Tensor) -> Any:
        total = call.plain()
        return total, slope(0.99 * (input > 0).to(input.dtype))

    yield
    unregister_rule(RELU)


def unfinished(folder: Path) -> bool:
    return json.loads((folder / "run.json").read_text())["status"] == "unfinished"


def finished_rows(folder: Path) -> int:
    path = folder / "samples.csv"
    return len(list(csv.DictReader(path.open()))) if path.exists() else 0


def stopped(config: Path, folder: Path, match: str) -> None:
    with pytest.raises(RunError, match=match) as caught:
        evaluate(load_config(str(config)), folder, limit=2)
    assert caught.value.exit_code == 1
    assert unfinished(folder)


@pytest.mark.usefixtures("wrong_relu")
def test_a_wrong_rule_is_named(tiny_config: Path, tmp_path: Path) -> None:
    stopped(tiny_config, tmp_path, r"sum of parts.*relu_? in module 'deco.*breaks conserv")
    assert finished_rows(tmp_path) == 0


@pytest.mark.parametrize("by", [math.nan, 0.1])
def test_a_replay_that_deviates(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: float
) -> None:
    replay = predict.replay

    def off(*given: Any) -> Any:
        return {name: part + by * part.abs().max() for name, part in replay(*given).items()}

    monkeypatch.setattr(predict, "replay", off)
    stopped(tiny_config, tmp_path, r"the replay deviation is .*every operation conserves by")
    assert finished_rows(tmp_path) == 0


def test_a_total_that_is_not_the_plain_networks(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuse = SimpleBEV.fuse

    def another(self: SimpleBEV, *given: Any, **named: Any) -> Any:
        return {name: value + 0.1 for name, value in fuse(self, *given, **named).items()}

    monkeypatch.setattr(SimpleBEV, "fuse", another)
    stopped(tiny_config, tmp_path, "deviation of the total from the plain network's output")


def test_rows_that_are_there_are_looked_at_too(tiny_config: Path, tmp_path: Path) -> None:
    evaluate(load_config(str(tiny_config)), tmp_path, limit=2)
    path = tmp_path / "samples.csv"
    rows = list(csv.DictReader(path.open()))
    text = path.read_text()
    assert rows[1]["replay_deviation"] in text
    path.write_text(text.replace(rows[1]["replay_deviation"], "nan"))
    record = tmp_path / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "files": {}}))
    stopped(tiny_config, tmp_path, f"sample {rows[1]['sample_token']}: replay_deviation")


def test_no_number_is_beyond_every_limit() -> None:
    require_within("x", 0.5, 1.0, str)
    for value in (math.nan, math.inf, 1.5):
        with pytest.raises(RunError, match=r"x is .*, beyond 1e\+00: here"):
            require_within("x", value, 1.0, lambda: "here")


def test_limits_by_precision() -> None:
    x = torch.zeros(())
    actual = [tolerances_of(x.to(t)) for t in (torch.float64, torch.float32, torch.bfloat16)]
    assert actual == [DOUBLE, SINGLE, HALF]
    assert (DOUBLE.replay, SINGLE.replay) == (1e-9, 1e-3)


def test_a_map_that_conserves_at_no_step_is_found() -> None:
    """Its parts sum to the total, but it reads what the network goes on to write."""

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return torch.selu(camera + radar).tanh()

    features = {name: torch.randn(2, 3).double() for name in ("camera", "radar")}
    result = decompose(function, features, keep_maps=True)
    assert first_deviation(result, features, 1e-9) is None
    assert result.program is not None
    for output in result.program.steps[1].outputs:
        output.map = Affine(lambda h: 2 * h)
    step = first_deviation(result, features, 1e-9)
    assert step is not None
    assert step.operation == "torch.selu"


@pytest.mark.usefixtures("wrong_relu")
def test_the_first_operation_at_fault_is_named() -> None:
    features = {name: torch.randn(2, 3).double() for name in ("camera", "radar")}
    said = locate_deviation(
        lambda camera, radar: (camera + radar).relu() * 2, features, Variant(), None, 1e-9
    )
    assert said.startswith("torch.Tensor.relu outside any module breaks conservation")


def test_parts_far_beyond_the_total_are_reported() -> None:
    total = torch.tensor([1.0, 2.0, 0.0, 4.0])
    parts = {"camera": 30 * total, "bias": -29 * total}
    assert magnification(total, parts) == 59.0
    assert magnification(torch.zeros(2), {"camera": torch.ones(2)}) == 0.0
    with pytest.warns(UserWarning, match=r"59 times its total.*identity-ratio keeps attention"):
        warn_of_large_parts(Variant(softmax="secant"), 59.0)
    with pytest.warns(UserWarning, match=r"identity-ratio-taylor-frozen takes the derivative"):
        warn_of_large_parts(Variant(), 59.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_large_parts(Variant(), 50.0)
    assert large_parts_message(Variant(), math.nan) is None
