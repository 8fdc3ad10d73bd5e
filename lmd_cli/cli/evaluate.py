"""``lmd evaluate``: the perturbation protocol on a split."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from lmd_cli.cli import options
from lmd_cli.cli.ranks import among_ranks

if TYPE_CHECKING:
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
    from lmd_cli.workflows.evaluate import contribute, evaluate

    trackers = options.require_trackers(log)
    run = given.load(precision=precision, memory=memory, workers=workers)
    folder = output or Path("results") / run.name
    shared: Shared = {
        "methods": method or (),
        "relinearise": operating_point is OperatingPoint.PERTURBED,
        "on_error": on_error.value,
    }
    where: Where = {
        "limit": limit,
        "resume": resume,
        "overwrite": overwrite,
        "hash_data": hash_data,
    }
    summary = among_ranks(
        folder,
        partial(evaluate, run, folder, **where, **shared),
        partial(contribute, run, folder, **shared),
        debug,
    )
    if summary is None:
        return
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
