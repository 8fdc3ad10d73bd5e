"""Commands whose work several processes share, and that a signal ends alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import typer

from lmd_cli.cli.errors import INTERRUPTED, explain
from lmd_cli.runtime.printable import printable

if TYPE_CHECKING:
    from lmd_cli.runtime.progress import Progress
    from lmd_cli.runtime.ranks import Rank

T = TypeVar("T", covariant=True)


class Lead(Protocol[T]):
    """What rank 0 does."""

    def __call__(self, *, progress: Progress, rank: Rank | None) -> T:
        """Its result; ``rank`` is ``None`` in a single process."""


class Share(Protocol):
    """What each other rank does."""

    def __call__(self, *, rank: Rank) -> None:
        """Takes the share of a rank."""


def among_ranks(folder: Path, lead: Lead[T], share: Share, debug: bool) -> T | None:
    """Leads, or takes this rank's share: the result of rank 0, and nothing elsewhere.

    Args:
        folder: where what is finished is kept.
        debug: errors keep their traceback.
    """
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.runtime.ranks import launched

    rank = launched()
    with stoppable(folder):
        if rank is not None and rank.rank:
            quietly(rank, partial(share, rank=rank), debug)
            return None
        progress = make_progress()
        try:
            return lead(progress=progress, rank=rank)
        finally:
            progress.close()


def quietly(rank: Rank, work: Callable[[], None], debug: bool) -> None:
    """Another rank than 0: quiet, but for what went wrong."""
    try:
        work()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None  # rank 0 says it
    except Exception as error:
        explained = None if debug else explain(error)
        if explained is None:
            raise
        typer.echo(printable(f"error in rank {rank.rank}: {explained[0]}"), err=True)
        raise typer.Exit(explained[1]) from None


@contextmanager
def stoppable(folder: Path) -> Iterator[None]:
    """Ctrl-C, and what launchers and schedulers send before they kill, end a run alike.

    Raises:
        KeyboardInterrupt: with a message that says how to go on.
    """
    # Only a process's main thread may say what a signal does.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: finished rows are kept in {folder}; the same command goes on from there"
        ) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
