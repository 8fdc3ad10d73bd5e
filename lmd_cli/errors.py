"""Errors that the command line shows to the user without a traceback.

Each says what was wrong, where, what was expected and what to do; the command line prints the
message without a traceback and exits with :attr:`LmdError.exit_code`.
"""

from __future__ import annotations

import errno
from pathlib import Path


class LmdError(Exception):
    """Base of every error caused by input that the user can mend (exit code 2)."""

    exit_code = 2


class ConfigError(LmdError):
    """A YAML file or a ``--set`` value that cannot be used."""


class CheckpointError(LmdError):
    """Weights that are missing, damaged, unsafe or of another architecture."""


class DataError(LmdError):
    """A dataset file or record that is missing or damaged.

    Attributes:
        path: the offending file, if there is one.
        token: the sample (or record) token that needs it, if known.
    """

    def __init__(self, message: str, *, path: Path | str | None = None, token: str | None = None):
        super().__init__(message)
        self.path = None if path is None else str(path)
        self.token = token


class ResultsError(LmdError):
    """A run folder that belongs to another run, or results that would be overwritten."""


class RunError(LmdError):
    """A failure at run time that input did not cause, such as a full disk (exit code 1)."""

    exit_code = 1


class MethodError(LmdError):
    """A method of attribution that cannot explain this network or this output."""


class ContractError(LmdError):
    """A network or data set of the user's own that breaks its contract; see docs/extending.md."""


class ForeignFileError(LmdError):
    """A symbolic link, pipe, device or folder where a file of our own belongs."""


def out_of_memory(error: BaseException) -> bool:
    """Whether it is Python's, torch's on a GPU, or torch's on the CPU (a plain RuntimeError)."""
    on_gpu = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or on_gpu or on_cpu or system
