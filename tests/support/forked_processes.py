"""Real processes without the seconds that an import of torch takes: forks of the tests' own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lmd_cli.cli.app import app


def start(arguments: list[str], log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Runs the command line in a fork that writes what it prints to a file; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.environ |= environment or {}
        with open(log, "w", buffering=1) as file:
            sys.stdout = sys.stderr = file  # type: ignore[assignment]
            try:
                app(arguments, prog_name="lmd")
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(code)


def slurm(rank: int, size: int, port: int) -> dict[str, str]:
    """What ``srun`` would set on one node."""
    values = {"PROCID": rank, "NTASKS": size, "LOCALID": rank, "TASKS_PER_NODE": size}
    named = {f"SLURM_{name}": str(value) for name, value in values.items()}
    return {**named, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def ranks(arguments: list[str], size: int, folder: Path) -> list[int]:
    """As ``srun --ntasks size`` would start them; their logs are ``rank-0.txt`` and so on."""
    if size == 1:
        return [start(arguments, folder / "rank-0.txt")]
    port = free_port()
    return [
        start(arguments, folder / f"rank-{rank}.txt", slurm(rank, size, port))
        for rank in range(size)
    ]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def ended(pids: list[int], seconds: float = 120.0) -> list[int]:
    """Exit codes (negative: a signal's number); what takes longer is killed.

    Raises:
        TimeoutError: something took longer.
    """
    codes: dict[int, int] = {}
    deadline = time.monotonic() + seconds
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            kill([pid for pid in pids if pid not in codes])
            raise TimeoutError(f"still running after {seconds} s")
        time.sleep(0.005)
    return [codes[pid] for pid in pids]


def wait_until(reached: Callable[[], bool], pids: list[int], seconds: float = 120.0) -> None:
    """Waits for a condition; the processes are killed if it does not come."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            kill(pids)
            pytest.fail("it did not come to that")
        time.sleep(0.002)


def is_over(pid: int) -> bool:
    """Whether a process has ended; its exit code can still be asked for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    """Sends a signal to those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def lines(path: Path) -> int:
    """Lines of a file, none of one that is not there."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def rank_of(parent: int, rank: int) -> int:
    """The process that a launcher started as this rank."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes() for pid in children}
    return next(p for p, e in environments.items() if f"\0RANK={rank}\0".encode() in b"\0" + e)


def finished(out: Path) -> int:
    """Samples whose rows are there, wherever."""
    files = [out / "samples.csv", *out.glob("rows/*.samples.csv")]
    return sum(max(lines(path) - 1, 0) for path in files)


def sometimes(out: Path, goal: int, seconds: float) -> None:
    """Waits for that many finished samples, but not for long."""
    deadline = time.monotonic() + seconds
    while finished(out) < min(goal, 6) and time.monotonic() < deadline:
        time.sleep(0.001)
