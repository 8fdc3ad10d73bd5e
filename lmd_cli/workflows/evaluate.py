"""``lmd evaluate``: the perturbation protocol of Appendix D.4, also divided among ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lmd_cli.config.schema import RunConfig
from lmd_cli.data import collate, read_ahead
from lmd_cli.data.content import file_hashes
from lmd_cli.evaluation.measure import RecordedNumbers, Rows, measure, verified_samples
from lmd_cli.evaluation.schedule import divide
from lmd_cli.evaluation.walk import Encoder, walk
from lmd_cli.results.pair_rows import Stretch, Watch, merge, missing, sample_paths
from lmd_cli.results.provenance import claim_data, note_end, note_start, require_unedited
from lmd_cli.results.record import no_resume, require_own, require_same_ranks
from lmd_cli.results.reopen import reopen
from lmd_cli.results.run_folder import RunFolder, read_record
from lmd_cli.runtime.meeting import Meeting
from lmd_cli.runtime.ranks import Plan, Rank
from lmd_cli.runtime.stopwatch import Stopwatch
from lmd_cli.workflows.finish import RunSummary, finish, finished_before, is_complete
from lmd_cli.workflows.ranks import Progress, Tally, planned, require_all, wait_for_ranks
from lmd_cli.workflows.setup import Run, prepare

log = logging.getLogger(__name__)


def evaluate(
    config: RunConfig,
    output: Path,
    *,
    methods: Sequence[str] = (),
    relinearise: bool = False,
    table_only: bool = False,
    limit: int | None = None,
    resume: bool = True,
    overwrite: bool = False,
    on_error: str = "stop",
    hash_data: bool = False,
    progress: Progress | None = None,
    rank: Rank | None = None,
) -> RunSummary:
    """Runs the perturbation protocol and writes its results into a folder.

    Of a run that is finished nothing is computed but the first samples' outputs, to make sure that
    it is still the same network.

    Args:
        config: the resolved configuration.
        output: the run's folder; a run that was cut off there goes on.
        methods: what to evaluate instead of the config's variants, which are ``lmd``.
        relinearise: linearise LMD anew at each perturbed input, not at the clean sample.
        table_only: replace sensors only as the paper's tables do: with three of them no single one.
        limit: only the first samples of the cycle (N and the stride stay).
        resume: go on from results that are there.
        overwrite: replace results that are there.
        on_error: ``stop`` at unreadable data, or ``skip`` the sample and drop its pairs.
        hash_data: note the hash of every data file, not only of some samples' files.
        progress: where to show progress.
        rank: this process is rank 0 of several; the others call :func:`contribute`.

    Raises:
        ConfigError, CheckpointError, DataError: bad input.
        MethodError: an unknown method, or one that gives no maps of this network.
        ResultsError: the folder holds another run's results, those of other code, weights or data,
            some that were edited, or some that ``resume=False`` would lose.
        RunError: the disk is full, or another rank ended early.
    """
    meeting = None if rank is None else Meeting(rank)
    with nullcontext() if meeting is None else meeting.announcing_failure():
        recorded = None if overwrite else read_record(output)
        how = (methods, relinearise, table_only)
        run = prepare(
            config,
            progress,
            *how,
            rank=rank,
            recorded=recorded,
            skip_errors=on_error == "skip",
            limit=limit,
        )
        folder = RunFolder(output)
        last = min(limit or run.schedule.samples, run.schedule.samples)
        with folder.locked() as job:
            hashes = file_hashes(run.dataset, whole=hash_data)
            before = _claim(folder, run, resume, overwrite, hashes)
            if is_complete(folder, before, run.dataset, last):
                _tell_ranks(run, folder, job, meeting)
                return finished_before(folder)
            with noted(folder, run):
                _measure_missing(run, folder, job, last, progress, meeting)
                return finish(run, folder)


@contextmanager
def noted(folder: RunFolder, run: Run) -> Iterator[None]:
    """Marks the folder's run as unfinished, and notes when the block began and ended."""
    folder.write_record({"status": "unfinished", **run.record()})
    note_start(folder.path)
    began = time.monotonic()
    yield
    note_end(folder.path, str((folder.read_record() or {}).get("status")), time.monotonic() - began)


def _tell_ranks(run: Run, folder: RunFolder, job: str, meeting: Meeting | None) -> None:
    """There is no work for the other ranks."""
    if meeting is None:
        return
    shares = divide([], meeting.size)
    meeting.publish(Plan(job, run.record(), shares))
    wait_for_ranks(folder, meeting, Tally(None, Watch(()), shares))


def _measure_missing(
    run: Run,
    folder: RunFolder,
    job: str,
    last: int,
    progress: Progress | None,
    meeting: Meeting | None,
) -> None:
    """Rank 0's part: divides what is missing, does its own share, waits, and merges."""
    done = merge(folder.path)
    if back := reopen(folder.path, run.dataset):
        log.warning("%d samples that were skipped can be read, and are done now", len(back))
        done = merge(folder.path)
    todo = missing(folder.path, done, last)
    shares = divide(todo, 1 if meeting is None else meeting.size)
    if meeting is not None:
        meeting.publish(Plan(job, run.record(), shares))
    others = [part for share in shares[1:] for part in share]
    tally, lost = Tally(progress, Watch(sample_paths(folder.path, others)), shares), []
    try:
        _work(run, folder, shares[0], tally.advance, done)
        if meeting is not None:
            lost = wait_for_ranks(folder, meeting, tally)
    finally:
        tally.close()
    if todo:
        require_all(merge(folder.path), last, lost)


def contribute(
    config: RunConfig,
    output: Path,
    rank: Rank,
    *,
    methods: Sequence[str] = (),
    relinearise: bool = False,
    on_error: str = "stop",
) -> None:
    """Measures one rank's share of what rank 0 evaluates, with the same arguments.

    Raises:
        ResultsError: this rank would compute something else, or sees another folder.
        RunError: rank 0 ended before it had divided the work, or hangs.
        LmdError: as :func:`evaluate`.
    """
    with planned(rank, output) as plan:
        if plan is None:
            return
        skip = on_error == "skip"
        asked = (config, None, methods, relinearise)
        run = prepare(*asked, rank=rank, recorded=plan.record, skip_errors=skip)
        require_same_ranks(plan.record, run.record(), rank.rank)
        _work(run, RunFolder(output), plan.shares[rank.rank])


def _claim(
    folder: RunFolder, run: Run, resume: bool, overwrite: bool, data: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """Makes sure that what is in the folder is this run's and unchanged, or gone; gives its record.

    Args:
        data: hashes of files.
    """
    if overwrite:
        folder.clear()
    before = folder.read_record()
    if folder.has_results():
        if not resume:
            raise no_resume(folder.path)
        require_own(before, run.record(), folder.path, folder.path)
        require_unedited(folder.path, before)
    else:
        folder.write_record({"status": "unfinished", **run.record()})
    claim_data(folder.path, data)
    return before


def _work(
    run: Run,
    folder: RunFolder,
    share: Sequence[range],
    tell: Callable[[str, float], None] | None = None,
    done: int = -1,
) -> None:
    """Measures ranges of positions and writes their rows.

    Args:
        share: the ranges.
        tell: called with each finished sample's token and the share of time spent waiting for data.
        done: samples in the run's own files, which the range that begins there goes on with.
    """
    stopwatch, keep = Stopwatch(), verified_samples(run.schedule)
    task, recorded = run.task, _recorded(run)
    with _reader(run, share) as read:
        encode = _encoder(run, read, stopwatch)
        for part in share:
            stretch = folder.rows() if part.start == done else Stretch(folder.path, part.start)
            stretch.trim()
            for visit in walk(
                run.schedule, encode, part.start, part.stop, keep, run.compute.chunks
            ):
                rows = measure(task, visit, recorded)
                token = visit.sample.token
                stretch.append(rows.pairs, rows.sample, (token, *stopwatch.lap()))
                if tell is not None:
                    tell(token, stopwatch.waiting_share)


def measured_again(run: Run, positions: Sequence[int]) -> Iterator[Rows]:
    """Rows of single positions of the walk, written nowhere."""
    share = [range(position, position + 1) for position in positions]
    keep, chunks = verified_samples(run.schedule), run.compute.chunks
    with _reader(run, share) as read:
        encode = _encoder(run, read, Stopwatch())
        for part in share:
            for visit in walk(run.schedule, encode, part.start, part.stop, keep, chunks):
                yield measure(run.task, visit)


def _recorded(run: Run) -> RecordedNumbers | None:
    """What baselines need besides is not recorded."""
    if run.baselines or not run.compute.cuda_graphs:
        return None
    return RecordedNumbers(run.task, run.compute.chunks)


def _encoder(run: Run, read: Any, stopwatch: Stopwatch) -> Encoder:
    return Encoder(
        run.built.network,
        run.dataset,
        run.device,
        read,
        stopwatch,
        run.compute.precision,
        run.skip_errors,
        run.compute.cuda_graphs,
    )


def _reader(run: Run, share: Sequence[range]) -> Any:
    """A context that gives the share's samples, read ahead in the order of the walk."""
    order = [index for part in share for index in run.schedule.order(part.start, part.stop)]
    pinned = run.device.type == "cuda"
    return read_ahead(run.dataset, collate, order, run.workers, pinned)
