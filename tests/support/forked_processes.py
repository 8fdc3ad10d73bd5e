"""Real processes without the seconds that an import of torch takes: forks of the tests' own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

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
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            kill([pid for pid in pids if pid not in codes])
            raise TimeoutError(f"still running after {seconds} s")
        time.sleep(0.005)
    return [codes[pid] for pid in pids]


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    """Sends a signal to those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
