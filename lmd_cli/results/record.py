"""``run.json``: the identity of a run, compared before another one continues in its folder."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lmd_cli.errors import ResultsError

_PACKAGES = ("lmd-cli", "torch", "numpy", "pandas", "pillow")
#: Entries of ``run.json`` that must agree for a run to go on in a folder.
IDENTITY = (
    *("config", "rows", "perturbed", "without", "weights", "samples", "schedule"),
    *("threads", "compute", "device", "processor", "versions"),
)


@functools.cache
def package_versions() -> Mapping[str, str]:
    """Versions of what computes the results."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def processor(device: torch.device) -> str:
    """What sums numbers: the GPU's name, or the CPU's vector instructions.

    Both choose the order of a sum, so results agree to the last bit only on the same.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.backends.cpu.get_cpu_capability())


def sample_list_sha256(tokens: Sequence[str]) -> str:
    """Hash of the tokens in order, one a line."""
    return hashlib.sha256("".join(f"{token}\n" for token in tokens).encode()).hexdigest()


def identity(
    config: Any, built: Any, tokens: Sequence[str], threads: int, device: torch.device
) -> dict[str, Any]:
    """The entries of ``run.json`` that say which run it is, whatever the command.

    Args:
        config: a ``RunConfig``.
        built: a ``BuiltNetwork``.
        tokens: of all samples.
        device: what computes; a GPU's number does not count, because a rank's own must not show
            in the results.
    """
    return {
        "config": config.model_dump(mode="json"),
        "checkpoint": built.checkpoint,
        "weights": {"sha256": built.sha256, "random": built.random},
        "samples": {"count": len(tokens), "sha256": sample_list_sha256(tokens)},
        "threads": threads,
        "device": device.type,
        "processor": processor(device),
        "versions": package_versions(),
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields that differ, as ``data.split: 'val' there, 'mini_val' here``."""
    lines = []
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} there, {after!r} here")
    return lines


def _anywhere(record: Mapping[str, Any], key: str) -> Any:
    """An entry without the folder where the data lies: the same root has many names, and what is
    in it is identified by its samples' tokens."""
    value = record.get(key)
    data = value.get("data") if key == "config" and isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(data, Mapping):
        return value
    return {**value, "data": {name: data[name] for name in data if name != "dataroot"}}


def require_own(
    old: Mapping[str, Any] | None, new: Mapping[str, Any], folder: Path, results: Path | None
) -> None:
    """Refuses to go on with another run's results, or with some of which nobody knows whose.

    Args:
        old: the record that is there, if any.
        new: this run's.
        folder: the run's.
        results: where there are any.

    Raises:
        ResultsError: says so, and to what field it is due.
    """
    if old is not None:
        _require_same_run(old, new, folder)
    elif results is not None:
        raise ResultsError(
            f"{results} holds results without a run.json, so nothing shows that they are this "
            "run's; use another --output, or --overwrite to replace them"
        )


def _require_same_run(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    different = _different_identity(old, new)
    if different:
        raise ResultsError(
            f"{folder} holds the results of another run:{different}\n"
            "Use another --output, or --overwrite to replace them"
        )


def require_same_ranks(first: Mapping[str, Any], own: Mapping[str, Any], rank: int) -> None:
    """Refuses to mix the rows of processes that compute different things.

    Raises:
        ResultsError: names every field that differs.
    """
    different = _different_identity(first, own)
    if different:
        raise ResultsError(
            f"rank {rank} is not like rank 0 (there), so their rows would not fit together:"
            f"{different}\n"
            "Start every process with the same command, packages and kind of processor"
        )


def _different_identity(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Lines of the fields that differ; empty if none does."""
    there, here = ({key: _anywhere(record, key) for key in IDENTITY} for record in (old, new))
    return "".join(f"\n  {line}" for line in differences(there, here))
