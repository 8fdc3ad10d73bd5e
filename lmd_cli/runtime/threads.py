"""Chooses the number of CPU threads, on which the last digits of sums depend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from lmd_cli.config.schema import RunConfig
from lmd_cli.errors import ConfigError

OMP = "OMP_NUM_THREADS"


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_threads(
    config: RunConfig,
    device: torch.device,
    local_size: int | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> int:
    """The config's; else as before; else ``OMP_NUM_THREADS``; else the cores this process has.

    On a GPU nothing is summed on the CPU, and one thread does, however many processes there are.

    Args:
        local_size: processes that a launcher started on this machine; none without a launcher.
        recorded: the record of the run that this one goes on with, if any.

    Raises:
        ConfigError: ``OMP_NUM_THREADS`` is no number.
    """
    before = None if recorded is None else recorded.get("threads")
    if config.threads or isinstance(before, int):
        return config.threads or int(before or 1)
    if device.type == "cuda":
        return 1
    return _asked(local_size) or max(1, available_cores() // (local_size or 1))


def _asked(local_size: int | None) -> int | None:
    """What the environment says; ``torchrun`` itself says 1 where the user says nothing."""
    text = os.environ.get(OMP, "").split(",")[0].strip()  # a list has a number for each nesting
    if not text or (local_size is not None and text == "1"):
        return None
    if not text.isdecimal() or not 0 < int(text) <= 4096:
        raise ConfigError(f"environment variable {OMP} is {text!r}; expected a number from 1")
    return int(text)


def threads_note(config: RunConfig, threads: int, device: torch.device) -> str:
    """What a reader must know of a number of threads that the config leaves open; else nothing."""
    if config.threads or device.type == "cuda":
        return ""
    return (
        f"Computed with {threads} CPU thread{'s' if threads > 1 else ''}, a number that the config "
        "leaves open; another changes the last digits. For the same bytes with any number of cores "
        f"and processes: --set threads={threads}."
    )
