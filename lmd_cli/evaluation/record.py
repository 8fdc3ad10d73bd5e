"""``run.json``: what a run is, so that another run does not go on in its folder."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from lmd_cli.errors import ResultsError

_PACKAGES = ("lmd-cli", "torch", "numpy", "nuscenes-devkit", "pandas", "pillow")
#: Entries of ``run.json`` that must agree for a run to go on in a folder.
IDENTITY = (
    *("config", "rows", "weights", "samples", "schedule"),
    *("threads", "compute", "device", "versions"),
)


def package_versions() -> dict[str, str]:
    """Versions of what computes the results."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def sample_list_sha256(tokens: Sequence[str]) -> str:
    """Hash of the tokens in order, one a line."""
    return hashlib.sha256("".join(f"{token}\n" for token in tokens).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields that differ, as ``data.split: 'val' there, 'mini_val' here``."""
    found = []
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before!r} there, {after!r} here")
    return found


def require_same_run(old: Mapping[str, Any], new: Mapping[str, Any], folder: str) -> None:
    """Refuses to go on with another run's results.

    Raises:
        ResultsError: names every field that differs.
    """
    found = differences({k: old.get(k) for k in IDENTITY}, {k: new.get(k) for k in IDENTITY})
    if found:
        listed = "\n  ".join(found)
        raise ResultsError(
            f"{folder} holds the results of another run:\n  {listed}\n"
            "Use another --output, or --overwrite to replace them"
        )
