"""``lmd evaluate``: the perturbation protocol on a split."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from lmd_cli.cli import options
from lmd_cli.cli.errors import INTERRUPTED, explain
from lmd_cli.runtime.printable import printable

if TYPE_CHECKING:
    from lmd_cli.config.schema import RunConfig
    from lmd_cli.runtime.ranks import Rank
    from lmd_cli.workflows.finish import RunSummary


class OperatingPoint(str, Enum):
    """Where LMD linearises the network for a perturbed input."""

    CLEAN = "clean"
    PERTURBED = "perturbed"


class OnError(str, Enum):
    """What to do with a sample whose files cannot be read."""

    STOP = "stop"
    SKIP = "skip"


def command(
    given: options.NetworkOptions,
    precision: options.Precision = None,
    memory: options.Memory = None,
    output: options.Output = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="A method of attribution; repeatable (default: lmd, the config's variants).",
        ),
    ] = None,
    operating_point: Annotated[
        OperatingPoint,
        typer.Option(
            help="Where LMD linearises for a perturbed input: at the clean sample as the paper, or "
            "anew at the perturbed input (how stable are the parts?)."
        ),
    ] = OperatingPoint.CLEAN,
    limit: options.Limit = None,
    resume: options.Resume = True,
    overwrite: options.Overwrite = False,
    on_error: Annotated[
        OnError, typer.Option(help="At a sample that cannot be read.")
    ] = OnError.STOP,
    hash_data: Annotated[
        bool, typer.Option("--hash-data", help="Note the hash of every data file (reads them all).")
    ] = False,
    workers: options.Workers = None,
    log: options.Log = None,
    debug: options.Debug = False,
) -> None:
    """Replace each sensor by another sample's: which parts change, and which keep still?

    Writes metrics.csv, table.csv, pairs.csv and run.json to results/<config name>. Started by
    torchrun or srun, the processes share the work; rank 0 shows the result.
    """
    from lmd_cli.runtime.ranks import launched

    trackers = options.require_trackers(log)
    run = given.load(precision=precision, memory=memory, workers=workers)
    folder = output or Path("results") / run.name
    shared: Shared = {
        "methods": method or (),
        "relinearise": operating_point is OperatingPoint.PERTURBED,
        "on_error": on_error.value,
    }
    rank = launched()
    with stoppable(folder):
        if rank is not None and rank.rank:
            _contribute(run, folder, rank, shared, debug)
            return
        where: Where = {
            "limit": limit,
            "resume": resume,
            "overwrite": overwrite,
            "hash_data": hash_data,
        }
        summary = _evaluate(run, folder, where, rank, shared)
    if trackers:
        from lmd_cli.workflows.track import track_run

        track_run(trackers, folder, run)
    _show(summary, ["report", folder, *given.report_arguments(run)])


class Shared(TypedDict):
    """Arguments that must be the same on every rank."""

    methods: Sequence[str]
    relinearise: bool
    on_error: str


class Where(TypedDict):
    """Arguments of rank 0 alone."""

    limit: int | None
    resume: bool
    overwrite: bool
    hash_data: bool


def _evaluate(
    run: RunConfig, folder: Path, where: Where, rank: Rank | None, shared: Shared
) -> RunSummary:
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.evaluate import evaluate

    progress = make_progress()
    try:
        return evaluate(run, folder, progress=progress, rank=rank, **where, **shared)
    finally:
        progress.close()


def _contribute(run: RunConfig, folder: Path, rank: Rank, shared: Shared, debug: bool) -> None:
    from lmd_cli.workflows.evaluate import contribute

    quietly(rank, lambda: contribute(run, folder, rank, **shared), debug)


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


def _show(summary: RunSummary, next_command: Sequence[object]) -> None:
    from lmd_cli.cli import show
    from lmd_cli.results.provenance import FINISHED

    header = [str(name) for name in summary.table.columns]
    show.table(header, [[str(cell) for cell in row] for row in summary.table.to_numpy()])
    show.value("metrics", summary.metrics.to_dict("records"))
    show.lines(summary.notes)
    if not summary.computed:
        show.lines([FINISHED])
    show.files(summary.files, *next_command)
