"""Which source code runs: a hash of its files, and its git commit where it lies in a repository."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

_SECONDS = 20


@functools.cache
def revision(source: Path) -> dict[str, Any]:
    """The revision of a module or package.

    Args:
        source: a Python file, or the folder of a package.

    Returns:
        ``sha256`` of the source; where git tracks it also ``commit``, and ``modified``: whether a
        tracked file of the same folder differs from that commit.
    """
    folder, name = (source, "__init__.py") if source.is_dir() else (source.parent, source.name)
    identity: dict[str, Any] = {"sha256": source_sha256(source)}
    if _git(folder, "ls-files", "--error-unmatch", "--", name) is None:
        return identity
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return identity if commit is None else {**identity, "commit": commit, "modified": bool(changes)}


def source_sha256(source: Path) -> str:
    """Hash of a Python file, or of all those in a folder with their names."""
    if source.is_file():
        return hashlib.sha256(source.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*.py")):
        own = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{own}  {path.relative_to(source).as_posix()}\n".encode())
    return digest.hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; nothing without git, or where it refuses."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_SECONDS, env=environment, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()
