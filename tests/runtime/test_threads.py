"""The number of threads, and what of the machine a run's record holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.errors import ConfigError, ResultsError
from lmd_cli.results.record import processor, require_own
from lmd_cli.runtime import threads
from lmd_cli.runtime.ranks import Rank
from lmd_cli.workflows.evaluate import evaluate


@pytest.fixture(scope="module")
def config(tiny_config: Path) -> RunConfig:
    return load_config(str(tiny_config), ["variants=[identity-ratio]", "perturbation.count=1"])


def test_threads(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config's, else what a run began with, else a share of the node's cores."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    open_config = config.model_copy(update={"threads": None})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "available_cores", lambda: 16)
    me = Rank(0, 8, 0, 4, "a", 1)
    assert threads.resolve_threads(config, cpu, me.local_size, {"threads": 5}) == 1
    assert threads.resolve_threads(open_config, cpu, me.local_size, {"threads": 5}) == 5
    assert threads.resolve_threads(open_config, cpu, me.local_size, None) == 4
    assert threads.resolve_threads(open_config, cpu, None, {}) == 16
    assert threads.resolve_threads(open_config, gpu, me.local_size, None) == 1
    assert threads.resolve_threads(open_config, gpu, None, None) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.resolve_threads(open_config, cpu, None, None) == 3
    assert threads.resolve_threads(open_config, cpu, me.local_size, None) == 3
    assert threads.resolve_threads(open_config, cpu, me.local_size, {"threads": 5}) == 5
    assert threads.resolve_threads(config, cpu, me.local_size, None) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads.resolve_threads(open_config, cpu, None, None) == 1
    assert (
        threads.resolve_threads(open_config, cpu, me.local_size, None) == 4
    )  # torchrun says so by itself
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(ConfigError, match="OMP_NUM_THREADS is 'many'; expected a number"):
        threads.resolve_threads(open_config, cpu, None, None)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    assert threads.resolve_threads(open_config, cpu, me.local_size, None) == 1


def test_a_launchers_choice_of_threads_does_not_count(config: RunConfig, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert evaluate(config, tmp_path, limit=1).record["threads"] == 1
        assert torch.get_num_threads() == 1
        other = config.model_copy(update={"threads": 2})
        with pytest.raises(ResultsError, match="\n  threads: 1 there, 2 here"):
            evaluate(other, tmp_path, limit=1)
    finally:
        torch.set_num_threads(before)


def test_another_processor_is_another_run() -> None:
    old = {"device": "cpu", "processor": "AVX2"}
    with pytest.raises(ResultsError, match="processor: 'AVX2' there, 'AVX512' here"):
        require_own(old, {**old, "processor": "AVX512"}, Path("results"), None)


def test_the_record_names_no_gpu_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    run = SimpleNamespace(device=torch.device("cuda", 3))
    assert processor(run.device) == "a GPU"
