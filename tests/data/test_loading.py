"""Samples read ahead by worker processes: order, contents, errors, and how workers end."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from lmd_cli.assembly.targets import user_code
from lmd_cli.data import Loaded, Sample, Unreadable, collate, default_workers, loading, read_ahead
from lmd_cli.data.loading import Ahead, Reader
from lmd_cli.errors import DataError, LmdError, RunError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Numbers:
    """Sample i holds i, its process, its threads; some are broken."""

    def __init__(self, broken: dict[int, Exception] | None = None) -> None:
        self.broken = broken or {}

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise self.broken[index]
        time.sleep(0.02 * (index % 3))  # they finish in another order than they start
        about = (os.getpid(), torch.get_num_threads(), cv2.getNumThreads())
        tensors = {"images": torch.full((2, 3), float(index)), "radar_xyz": torch.ones(index, 3)}
        return Sample(f"token{index}", "scene", tensors | {"about": torch.tensor(about)})


def read_all(dataset: Any, order: list[int], workers: int) -> list[Loaded | Unreadable]:
    with read_ahead(dataset, collate, order, workers) as read:
        return [read(index) for index in order]


ORDER = [5, 0, 3, 8, 1, 2, 0, 4]


@pytest.mark.parametrize("workers", [0, 1, 3, 20])
def test_samples_come_in_the_order_announced(workers: int) -> None:
    actual = read_all(Numbers(), ORDER, workers)
    assert [sample.number for sample in actual] == ORDER
    processes = set()
    for sample in actual:
        assert isinstance(sample, Loaded)
        assert sample.token == f"token{sample.number}"
        images, points, about = (sample.batch[n] for n in ("images", "radar_xyz", "about"))
        assert images.tolist() == [[[float(sample.number)] * 3] * 2]
        assert [tuple(cloud.shape) for cloud in points] == [(sample.number, 3)]
        process, *threads = about[0].tolist()
        processes.add(process)
        assert not workers or threads == [1, 1]
    assert len(processes) == {0: 1, 1: 1, 3: 3, 20: len(ORDER)}[workers]
    assert (os.getpid() in processes) == (workers == 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_sample_comes_in_its_place(workers: int) -> None:
    damage = DataError("cut.jpg: truncated", path="cut.jpg", token="token3")
    good, bad, after = read_all(Numbers({3: damage}), [1, 3, 2], workers)
    assert isinstance(good, Loaded)
    assert isinstance(after, Loaded)
    assert isinstance(bad, Unreadable)
    assert isinstance(bad.error, DataError)
    assert (str(bad.error), bad.error.path, bad.error.token) == (
        *("cut.jpg: truncated", "cut.jpg", "token3"),
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_of_the_dataset_is_not_taken_for_a_dead_worker(workers: int) -> None:
    with pytest.raises(RuntimeError, match="DataLoader worker is my name") as caught:
        read_all(Numbers({1: RuntimeError("DataLoader worker is my name")}), [1], workers)
    assert not isinstance(caught.value, LmdError)


def test_no_samples_and_a_block_left_early() -> None:
    assert read_all(Numbers(), [], 2) == []
    with read_ahead(Numbers(), collate, ORDER, 2) as read:
        worker = read(5).batch["about"][0, 0].item()
        os.kill(worker, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_another_order_than_announced_is_refused() -> None:
    with read_ahead(Numbers(), collate, [1, 2], 1) as read:
        with pytest.raises(ValueError, match="sample 2 is not next"):
            read(2)
        assert read(2).number == 2
        with pytest.raises(ValueError, match="sample 3 is not next"):
            read(3)
    with pytest.raises(ValueError, match="not running"):
        Ahead(Reader(Numbers(), collate), [1], 1, False)(1)


def test_the_random_numbers_of_the_main_process_are_left_alone() -> None:
    read_all(Numbers(), ORDER, 2)
    torch.manual_seed(5)
    read_all(Numbers(), ORDER, 2)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


def test_a_killed_worker_is_an_error_that_says_what_to_do() -> None:
    def kill_one() -> None:
        with read_ahead(Numbers(), collate, [1] * 50, 2) as read:
            os.kill(int(read(1).batch["about"][0, 0]), signal.SIGKILL)
            for _ in range(49):
                read(1)

    with pytest.raises(RunError) as caught:
        kill_one()
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert "killed by signal: Killed" in message or "exited unexpectedly" in message
    assert "maybe because memory or shared memory (/dev/shm) ran out" in message
    assert "the same command goes on from there" in message
    assert len(message.splitlines()) == 1


def test_a_death_noticed_in_the_middle_of_other_work() -> None:
    """torch raises it from a signal handler: inside the network, whose callers put it in words."""

    def notice_in_the_network() -> None:
        with read_ahead(Numbers(), collate, [1] * 50, 2), user_code("SimpleBEV.tail"):
            raise RuntimeError("DataLoader worker (pid 7095) is killed by signal: Killed. ")

    with pytest.raises(RunError, match=r"worker \(pid 7095\) is killed by signal: Killed\), maybe"):
        notice_in_the_network()


def test_workers_do_not_heed_ctrl_c() -> None:
    with read_ahead(Numbers(), collate, [1] * 30, 1) as read:
        os.kill(int(read(1).batch["about"][0, 0]), signal.SIGINT)
        assert [read(1).number for _ in range(29)] == [1] * 29


@pytest.mark.parametrize(
    ("cores", "device", "expected"),
    [
        *[(0, CPU, 0), (1, CPU, 0), (2, CPU, 0), (3, CPU, 1), (64, CPU, 1)],
        *[(2, GPU, 0), (4, GPU, 3), (64, GPU, 8)],
    ],
)
def test_how_many_workers_pay(cores: int, device: torch.device, expected: int) -> None:
    assert default_workers(cores, device) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tensors_are_pinned_for_a_gpu(tmp_path: Path) -> None:
    with read_ahead(Numbers(), collate, [2], 1, pinned=True) as read:
        actual = read(2)
    assert actual.batch["images"].is_pinned()
    assert actual.batch["radar_xyz"][0].is_pinned()


# -- where something runs out -----------------------------------------------------------------


def refuse(*_: object) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file")


def test_what_shared_memory_does_not_hold_comes_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a container it is small; torch would lose the sample, and the run wait for ever."""
    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    broken = Numbers({3: DataError("broken")})
    actual = read_all(broken, ORDER, 2)
    assert [sample.number for sample in actual] == ORDER
    assert [type(sample) for sample in actual if sample.number == 3] == [Unreadable]
    for sample in actual:
        if isinstance(sample, Loaded):
            assert not sample.batch["images"].is_shared()
            assert float(sample.batch["images"].max()) == sample.number


@pytest.mark.parametrize(("files", "shared"), [(4096, True), (8, False)])
def test_with_few_open_files_no_tensor_takes_one(
    monkeypatch: pytest.MonkeyPatch, files: int, shared: bool
) -> None:
    monkeypatch.setattr(loading, "_may_open", lambda count: count <= files)
    actual = read_all(Numbers(), [1, 2], 4)
    assert [sample.batch["images"].is_shared() for sample in actual] == [shared, shared]


def test_too_few_files_for_any_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(count: int) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(loading, "_require_files", refuse)
    said = r"processes that read data cannot start \(Too many open files\).*ulimit -n.*--workers"
    with pytest.raises(RunError, match=said), read_ahead(Numbers(), collate, ORDER, 2):
        pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "a sample cannot be read"),
        (MemoryError("4 GB"), "out of memory"),
    ],
)
def test_a_limit_of_the_system_is_no_unreadable_sample(error: Exception, said: str) -> None:
    """It is not skipped, and its message is one line."""
    with pytest.raises(RunError, match=said) as caught:
        read_all(Numbers({2: error}), [1, 2], 1)
    assert "\n" not in str(caught.value)
    with pytest.raises(type(error)):
        read_all(Numbers({2: error}), [1, 2], 0)


def test_a_file_that_does_not_come_over_is_reported() -> None:
    ahead = Ahead(Reader(Numbers(), collate), [1], 1, False)
    ahead._samples = (refuse_files() for _ in range(1))
    with pytest.raises(RunError, match=r"cannot be taken over \(received 0 items of ancdata\)"):
        ahead(1)


def refuse_files() -> None:
    raise RuntimeError("received 0 items of ancdata")
