"""Who a process is among several, how the work is divided, and how rows come together."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.errors import ConfigError, ResultsError, RunError
from lmd_cli.evaluation.schedule import divide
from lmd_cli.results.pair_rows import Stretch, Watch, merge, missing, sample_paths
from lmd_cli.results.run_folder import RunFolder
from lmd_cli.runtime import meeting
from lmd_cli.runtime.meeting import Meeting
from lmd_cli.runtime.ranks import Plan, Rank, first_node, launched
from lmd_cli.workflows import ranks as tally
from lmd_cli.workflows.evaluate import evaluate
from tests.support.forked_processes import free_port

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "2",
}

SRUN = {
    "SLURM_PROCID": "9",
    "SLURM_NTASKS": "11",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_TASKS_PER_NODE": "4(x2),3",
    "SLURM_JOB_NODELIST": "gpu[07-08,12]",
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "3",
}


def test_what_torchrun_says() -> None:
    assert launched(TORCHRUN) == Rank(5, 8, 1, 4, "node1", 29400, hosted=True, attempt="2")
    assert launched({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}) is None
    assert launched({}) is None
    plain = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "7"}
    assert launched(plain) == Rank(1, 2, 1, 2, "127.0.0.1", 7)


def test_what_srun_says() -> None:
    assert launched(SRUN) == Rank(9, 11, 1, 3, "gpu07", 23459, attempt="123456.3")
    given = launched({**SRUN, "MASTER_ADDR": "host", "MASTER_PORT": "99"})
    assert given is not None
    assert (given.address, given.port) == ("host", 99)
    assert launched({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}) is None  # a batch script, no srun
    assert launched({**TORCHRUN, **SRUN}) == launched(TORCHRUN)  # torchrun inside a SLURM job


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("a-[3,5-7]", "a-3"), ("x[001-100],y", "x001"), ("", "")],
)
def test_the_first_node_of_slurms_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({**TORCHRUN, "RANK": "8"}, "rank 8 of 8 processes; expected a rank from 0 to 7"),
        ({**TORCHRUN, "RANK": "-1"}, "environment variable RANK is '-1'; expected a number"),
        ({**TORCHRUN, "MASTER_PORT": ""}, "environment variable MASTER_PORT is not set"),
        ({**SRUN, "SLURM_NTASKS": "many"}, "environment variable SLURM_NTASKS is 'many'"),
    ],
)
def test_a_launch_that_makes_no_sense_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        launched(environment)
    assert message in str(error.value)


def test_a_gpu_of_its_own() -> None:
    me = Rank(6, 8, 2, 4, "a", 1)
    assert [me.device(name, 4) for name in ("auto", "cuda")] == ["cuda:2", "cuda:2"]
    assert me.device("cuda:1", 4) == "cuda:1"
    assert me.device("cpu", 4) == "cpu"
    assert me.device("auto", 0) == "auto"
    assert me.device("auto", 1) == "cuda:0"  # srun --gpus-per-task=1 shows each task its own


@given(
    st.lists(st.integers(0, 40), min_size=2, max_size=8, unique=True).map(sorted),
    st.integers(1, 9),
)
def test_shares_are_equal_in_order_and_complete(edges: list[int], shares: int) -> None:
    parts = [range(*pair) for pair in zip(edges[::2], edges[1::2], strict=False)]
    divided = divide(parts, shares)
    assert len(divided) == shares
    flat = [position for share in divided for part in share for position in part]
    assert flat == [position for part in parts for position in part]
    sizes = [sum(map(len, share)) for share in divided]
    assert max(sizes) - min(sizes) <= 1
    assert all(part for share in divided for part in share)


def test_a_plan_is_published_whole() -> None:
    plan = Plan("job", {"threads": 1}, [[range(3), range(5, 6)], []])
    assert Plan.loads(plan.dumps()) == plan


# -- rows ---------------------------------------------------------------------------------

N = 12


def add(stretch: Stretch, positions: range) -> None:
    stretch.trim()
    for k in positions:
        pairs = [(f"s{k}", f"p{m}", m, "v", "radar", "radar", k / 7, m / 3) for m in range(k % 3)]
        sample = (k, f"s{k}", "ok", len(pairs), "", 1, 2, 1e-7, None)
        stretch.append(pairs, sample, (f"s{k}", 0.1, 0.2))


def everything(folder: Path) -> list[bytes]:
    return [(folder / f"{name}.csv").read_bytes() for name in ("pairs", "samples", "timings")]


@pytest.mark.parametrize("seed", range(20))
def test_rows_come_together_from_any_stretches(tmp_path: Path, seed: int) -> None:
    """Begun anywhere, some torn, some with gaps between: what is missing is filled and merged."""
    straight, folder, chance = tmp_path / "straight", tmp_path / "run", random.Random(seed)
    for path in (straight, folder):
        path.mkdir()
    add(Stretch(straight), range(N))
    edges = [0, *sorted(chance.sample(range(1, N), chance.randint(0, 4))), N]
    for first, last in itertools.pairwise(edges):
        stretch = Stretch(folder, first or None)
        add(stretch, range(first, chance.randint(first, last)))
        torn = chance.choice([stretch.pairs, stretch.samples, stretch.timings]).path
        torn.write_bytes(torn.read_bytes()[: -chance.randint(1, 30)])
    done = merge(folder)
    gaps = missing(folder, done, N)
    for share in divide(gaps, chance.randint(1, 3)):
        for part in share:
            add(Stretch(folder, None if part.start == done else part.start), part)
    assert merge(folder) == N
    assert missing(folder, N, N) == []
    pairs, samples, _ = everything(folder)
    assert [pairs, samples] == everything(straight)[:2]
    assert not (folder / "rows").exists()


def test_a_limit_leaves_stretches_behind_it_alone(tmp_path: Path) -> None:
    add(Stretch(tmp_path), range(2))
    add(Stretch(tmp_path, 7), range(7, 9))
    assert merge(tmp_path) == 2
    assert missing(tmp_path, 2, 4) == [range(2, 4)]
    assert missing(tmp_path, 2, 8) == [range(2, 7)]
    assert missing(tmp_path, 2, 12) == [range(2, 7), range(9, 12)]


def test_watching_the_others(tmp_path: Path) -> None:
    watch = Watch(sample_paths(tmp_path, [range(3, 6), range(8, 9)]))
    assert watch.count_new() == 0
    add(Stretch(tmp_path, 3), range(3, 5))
    assert watch.count_new() == 2
    add(Stretch(tmp_path, 8), range(8, 9))
    Stretch(tmp_path, 3).append([], (5, "s5", "ok", 0, "", 1, 2, 1e-7, None))
    assert watch.count_new() == 2
    assert watch.count_new() == 0


def test_only_ranks_of_the_job_are_let_in(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked() as job, folder.joined(job), RunFolder(tmp_path).joined(job):
        assert folder.others_at_work()
        with pytest.raises(ResultsError, match="another run is writing"), folder.locked():
            pass
        with (
            pytest.raises(ResultsError, match="on a file system that all ranks share"),
            folder.joined("another"),
        ):
            pass
    assert not folder.others_at_work()
    # A rank whose rank 0 is dead keeps the next run out.
    with folder.joined(job), pytest.raises(ResultsError, match="another run"), folder.locked():
        pass
    with folder.locked() as next_job:
        assert next_job != job


def test_a_forked_reader_does_not_keep_the_lock(tmp_path: Path) -> None:
    """It may outlive a killed parent by some seconds."""
    ready, tell = os.pipe()
    with RunFolder(tmp_path).locked():
        reader = os.fork()
        if not reader:
            os.write(tell, b".")
            time.sleep(60)
            os._exit(0)
        assert os.read(ready, 1) == b"."
    try:
        with RunFolder(tmp_path).locked():
            pass
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)


def test_a_file_system_without_locks_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("lmd_cli.runtime.locks.fcntl.flock", refuse)
    with pytest.raises(RunError, match=r"cannot be locked \(Operation not supported\)"):
        RunFolder(tmp_path).locked().__enter__()


# -- the meeting --------------------------------------------------------------------------


def test_a_rank_0_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "START_TIMEOUT", 0.3)
    port = free_port()
    with pytest.raises(RunError, match=f"waited 0 s for rank 0 at 127.0.0.1:{port}. Were all"):
        Meeting(Rank(1, 2, 1, 2, "127.0.0.1", port))


def test_a_rank_that_starts_after_rank_0_has_failed() -> None:
    port = free_port()

    def fail() -> None:
        with Meeting(Rank(0, 2, 0, 2, "127.0.0.1", port)).announcing_failure():
            raise ConfigError("no")

    with ThreadPoolExecutor() as pool:
        failing = pool.submit(fail)
        late = Meeting(Rank(1, 2, 1, 2, "127.0.0.1", port))
        with pytest.raises(RunError, match="rank 0 ended before it had divided the work"):
            late.plan()
        assert isinstance(failing.exception(10), ConfigError)  # once rank 1 has read of it


def test_a_failing_rank_0_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "FAILURE_GRACE", 0.3)
    store = Meeting(Rank(0, 2, 0, 2, "127.0.0.1", free_port()))
    with pytest.raises(ConfigError, match="no"), store.announcing_failure():
        raise ConfigError("no")


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f"rank 0 cannot meet the others at 127.0.0.1:{port}"):
            Meeting(Rank(0, 2, 0, 2, "127.0.0.1", port))


@pytest.fixture(scope="module")
def config(tiny_config: Path) -> RunConfig:
    return load_config(str(tiny_config), ["variants=[identity-ratio]", "perturbation.count=1"])


def test_a_rank_that_never_comes(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "LOST_AFTER", 0.3)
    monkeypatch.setattr(tally, "LOST_AFTER", 0.3)
    monkeypatch.setattr(meeting, "FAILURE_GRACE", 0.3)
    me = Rank(0, 2, 0, 2, "127.0.0.1", free_port())
    with pytest.raises(RunError, match="position 2 of 4 on: rank 1 has sent no heartbeat"):
        evaluate(config, tmp_path / "out", limit=4, rank=me)
    evaluate(config, tmp_path / "out", limit=4)
    evaluate(config, tmp_path / "straight", limit=4)
    for name in ("pairs.csv", "samples.csv", "metrics.csv", "run.json"):
        there, straight = (tmp_path / folder / name for folder in ("out", "straight"))
        assert there.read_bytes() == straight.read_bytes(), name


def test_who_waits_says_for_whom_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(meeting, "NOTICE_AFTER", -1.0)
    notice = meeting.WaitNotice("rank 0")
    for awaited in ([1, 3], [3]):
        notice.waits_for(awaited)
    assert caplog.messages == ["rank 0 waits for rank 1, rank 3"]
