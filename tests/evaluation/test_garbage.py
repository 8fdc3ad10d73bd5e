"""Memory of a finished sample is free at once: no circle of objects holds its tensors until the
garbage collector comes by, which with few and large objects may be hundreds of samples later."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from lmd_cli.config.loading import load_config
from lmd_cli.decomposition import decompose
from lmd_cli.workflows.evaluate import evaluate


def left_to_the_collector(work: Callable[[], object]) -> list[Tensor]:
    """Tensors in unreachable circles after some work."""
    gc.collect()
    gc.disable()
    try:
        work()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        # Torch's compiler, which other tests use, frees fake tensors late: they hold no memory.
        return [x for x in gc.garbage if isinstance(x, Tensor) and not isinstance(x, FakeTensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("methods", [("lmd",), ("shapley", "lmd-shapley", "partial-activations")])
def test_an_evaluation(tiny_config: Path, tmp_path: Path, methods: tuple[str, ...]) -> None:
    run = load_config(str(tiny_config))
    evaluate(run, tmp_path / "warm", methods=methods, limit=1)
    actual = left_to_the_collector(lambda: evaluate(run, tmp_path, methods=methods, limit=3))
    assert [type(x).__name__ for x in actual] == []


def test_a_decomposition() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.InstanceNorm2d(3))
    features = {"a": torch.randn(1, 2, 6, 6), "b": torch.randn(1, 2, 6, 6)}

    def work() -> None:
        decompose(lambda a, b: network.eval()(a + b), features, keep_maps=True, audit=True)

    assert left_to_the_collector(work) == []
