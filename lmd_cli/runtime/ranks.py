"""The processes of one run: which one this is, and the plan that the first gives the others.

``torchrun`` and ``srun`` start the same command several times and say in the environment which
one each is. Rank 0 reads what is done, divides the rest, and publishes that plan in a key-value
store; every rank then works alone and writes files of its own. There is no collective operation,
so a rank that dies cannot make the others hang.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmd_cli.errors import ConfigError


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
        attempt: distinguishes several starts that share one store.
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
        rank = _from_torchrun(env)
    elif "SLURM_PROCID" in env.values:
        rank = _from_slurm(env)
    else:
        return None
    if rank is not None and not 0 <= rank.rank < rank.size:
        raise ConfigError(
            f"this process is rank {rank.rank} of {rank.size} processes; expected a rank from 0 "
            f"to {rank.size - 1} (is RANK or SLURM_PROCID left over from another launch?)"
        )
    return rank


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
    match = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\])?", nodes)
    return "" if match is None else match[1] + (match[2] or "")


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
    """What rank 0 sends the others.

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
