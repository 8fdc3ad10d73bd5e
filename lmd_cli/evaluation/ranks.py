"""The processes of one run: which one this is, and what the first tells the others.

``torchrun`` and ``srun`` start the same command several times and say in the environment which
one each is. Rank 0 looks at what is done, divides the rest, and publishes that plan in a key-value
store; every rank then works alone and writes files of its own. There is no collective operation,
so a rank that dies cannot make the others hang.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lmd_cli.errors import ConfigError, LmdError, RunError

#: Seconds for rank 0 to prepare (an index or the synthetic root may have to be made first).
PLAN_TIMEOUT = 3600.0
#: Seconds for the processes to start.
START_TIMEOUT = 600.0
#: Seconds that a rank 0 which fails waits for the others to hear of it.
LINGER = 60.0
#: Seconds between two looks.
POLL = 0.2


@dataclass(frozen=True)
class Rank:
    """One process of several that make one run.

    Attributes:
        rank: from 0.
        size: number of processes.
        local: this process's number on its node, which chooses its GPU.
        local_size: processes on its node, which share the node's cores.
        address, port: where the store is.
        hosted: the launcher holds the store; else rank 0 does.
        attempt: tells apart several starts that share one store.
    """

    rank: int
    size: int
    local: int
    local_size: int
    address: str
    port: int
    hosted: bool = False
    attempt: str = "0"

    def device(self, name: str, gpus: int) -> str:
        """The config's device for this process: a GPU of its own where there are several."""
        if name in ("auto", "cuda") and gpus:
            return f"cuda:{self.local % gpus}"
        return name


def launched(environ: Mapping[str, str] | None = None) -> Rank | None:
    """This process's place among those that a launcher started; ``None`` if it is alone.

    Reads what ``torchrun`` sets (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR,
    MASTER_PORT), else what ``srun`` sets (SLURM_PROCID and its like).

    Raises:
        ConfigError: a variable that is missing or is no number in its range.
    """
    env = _Environment(os.environ if environ is None else environ)
    if "RANK" in env.values and "WORLD_SIZE" in env.values:
        found = _from_torchrun(env)
    elif "SLURM_PROCID" in env.values:
        found = _from_slurm(env)
    else:
        return None
    if found is not None and not 0 <= found.rank < found.size:
        raise ConfigError(
            f"this process is rank {found.rank} of {found.size} processes; expected a rank from 0 "
            f"to {found.size - 1} (is RANK or SLURM_PROCID left over from another launch?)"
        )
    return found


@dataclass(frozen=True)
class _Environment:
    values: Mapping[str, str]

    def number(self, *names: str, default: int | None = None) -> int:
        """The first of the variables that is set."""
        name = next((name for name in names if self.values.get(name)), None)
        if name is None and default is not None:
            return default
        text = "" if name is None else self.values[name]
        if not re.fullmatch(r"\d{1,9}", text):
            what = f"is {text!r}" if name else "is not set"
            raise ConfigError(
                f"environment variable {name or names[0]} {what}; expected a number, as torchrun "
                "and srun set it"
            )
        return int(text)

    def text(self, *names: str) -> str:
        """The first of the variables that is set; empty if none is."""
        return next((self.values[name] for name in names if self.values.get(name)), "")


def _from_torchrun(env: _Environment) -> Rank | None:
    rank, size = env.number("RANK"), env.number("WORLD_SIZE")
    if size == 1:
        return None
    return Rank(
        rank,
        size,
        local=env.number("LOCAL_RANK", default=rank),
        local_size=env.number("LOCAL_WORLD_SIZE", default=size),
        address=env.text("MASTER_ADDR") or "127.0.0.1",
        port=env.number("MASTER_PORT"),
        hosted=env.text("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=env.text("TORCHELASTIC_RESTART_COUNT") or "0",
    )


def _from_slurm(env: _Environment) -> Rank | None:
    size = env.number("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", default=1)
    if size == 1:
        return None
    rank = env.number("SLURM_PROCID")
    nodes = env.text("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    job, step = (env.number(f"SLURM_{what}_ID", default=0) for what in ("JOB", "STEP"))
    return Rank(
        rank,
        size,
        local=env.number("SLURM_LOCALID", default=0),
        local_size=_tasks_here(env, size),
        address=env.text("MASTER_ADDR") or first_node(nodes) or "127.0.0.1",
        # The same for every task of a job step, and another for the next one.
        port=env.number("MASTER_PORT", default=20_000 + (job + step) % 10_000),
        attempt=f"{job}.{step}",
    )


def first_node(nodes: str) -> str:
    """The first host of SLURM's short list: ``gpu07`` of ``gpu[07-09,12],login1``."""
    found = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\])?", nodes)
    return "" if found is None else found[1] + (found[2] or "")


def _tasks_here(env: _Environment, size: int) -> int:
    """``4(x2),3`` means four tasks on each of two nodes and three on a third."""
    text = env.text("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE") or str(size)
    counts: list[int] = []
    for each, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(each)] * int(times or 1)
    node = env.number("SLURM_NODEID", default=0)
    return counts[node] if node < len(counts) else size


@dataclass(frozen=True)
class Plan:
    """What rank 0 tells the others.

    Attributes:
        job: this start's own name, which stands in the folder's lock too.
        record: the identity of the run; every rank must find the same.
        shares: for each rank its ranges of positions.
    """

    job: str
    record: dict[str, Any]
    shares: list[list[range]]

    def dumps(self) -> str:
        """As text."""
        shares = [[[part.start, part.stop] for part in share] for share in self.shares]
        return json.dumps({"job": self.job, "record": self.record, "shares": shares})

    @classmethod
    def loads(cls, text: str | bytes) -> Plan:
        """From :meth:`dumps`."""
        read = json.loads(text)
        shares = [[range(*part) for part in share] for share in read["shares"]]
        return cls(read["job"], read["record"], shares)


class Meeting:
    """The store where ranks find each other.

    Raises:
        RunError: the store is not reached in time.
    """

    def __init__(self, me: Rank):
        from torch.distributed import PrefixStore, TCPStore

        self._me = me
        holds = me.rank == 0 and not me.hosted
        if not holds:
            _until(lambda: _listening(me), START_TIMEOUT, f"rank 0 at {me.address}:{me.port}")
        where = f"{me.address}:{me.port}, as MASTER_ADDR and MASTER_PORT or SLURM say"
        with _meaning(f"rank {me.rank} cannot meet the others at {where}"):
            timeout = timedelta(seconds=START_TIMEOUT)
            store = TCPStore(
                me.address, me.port, is_master=holds, timeout=timeout, wait_for_workers=False
            )
            self._store = PrefixStore(f"lmd/{me.attempt}", store)

    @property
    def size(self) -> int:
        """Number of processes."""
        return self._me.size

    def publish(self, plan: Plan) -> None:
        """Rank 0 tells the plan."""
        with _meaning("the plan cannot be told to the other ranks"):
            self._store.set("plan", plan.dumps())

    def plan(self) -> Plan:
        """What rank 0 told; waits for it.

        Raises:
            RunError: rank 0 ended without a plan, or another process is this rank already.
        """
        me = self._me.rank
        with _meaning("rank 0 has ended"):
            if self._store.add(f"claimed/{me}", 1) > 1:
                raise RunError(
                    f"another process at {self._me.address}:{self._me.port} is rank {me} already; "
                    "give each launch a MASTER_PORT of its own"
                )
        ended = "rank 0 ended before it had divided the work; its message says why"
        with _meaning(ended):
            _until(lambda: self._has("plan") or self._has("failed"), PLAN_TIMEOUT, "rank 0's plan")
            if not self._has("plan"):
                self.arrive()
                raise RunError(ended)
            return Plan.loads(self._store.get("plan"))

    def _has(self, key: str) -> bool:
        return bool(self._store.check([key]))

    def arrive(self) -> None:
        """Tells rank 0 that this rank has the plan, and is at work if it has any."""
        with _meaning("rank 0 has ended"):
            self._store.set(f"here/{self._me.rank}", "")

    def absent(self, ranks: Iterable[int]) -> list[int]:
        """Those that have not come yet."""
        with _meaning("the store is gone"):
            return [rank for rank in ranks if not self._has(f"here/{rank}")]

    @contextmanager
    def told_of_failure(self) -> Iterator[None]:
        """If rank 0 fails in this block, the others hear of it, also those that start late."""
        try:
            yield
        except LmdError:
            with contextlib.suppress(RunError), _meaning("the store is gone"):
                self._store.set("failed", "")
                self._linger()
            raise

    def _linger(self) -> None:
        """The store ends with this process if no launcher holds it."""
        deadline = time.monotonic() + LINGER
        while not self._me.hosted and time.monotonic() < deadline:
            if not self.absent(range(1, self.size)):
                return
            time.sleep(POLL)


@contextmanager
def _meaning(message: str) -> Iterator[None]:
    """Turns what the store raises (subclasses of RuntimeError) into an error that says more."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(f"{message} ({str(error).splitlines()[0]})") from error


def _until(reached: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits in short sleeps, so that Ctrl-C is heeded.

    Raises:
        RunError: not in time.
    """
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise RunError(
                f"waited {seconds:.0f} s for {what}. Were all processes started? If this is one "
                "process and no launcher was meant, unset RANK and SLURM_PROCID"
            )
        time.sleep(POLL)


def _listening(me: Rank) -> bool:
    """torch would wait where Ctrl-C does not reach it, so the port is tried first."""
    try:
        socket.create_connection((me.address, me.port), timeout=5).close()
    except OSError:
        return False
    return True
