"""The progress of all ranks of a run, and the wait for the last of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lmd_cli.errors import RunError
from lmd_cli.results.pair_rows import Watch
from lmd_cli.results.run_folder import RunFolder
from lmd_cli.runtime.meeting import LOST_AFTER, NO_HEARTBEAT, POLL, Meeting, WaitNotice, names
from lmd_cli.runtime.progress import Progress
from lmd_cli.runtime.ranks import Plan, Rank


class Tally:
    """Shows the samples that this process and the other ranks have finished.

    Args:
        watch: on the other ranks' files.
        shares: each rank's ranges.
        what: is done, in a word.
    """

    def __init__(
        self,
        progress: Progress | None,
        watch: Watch,
        shares: Sequence[Sequence[range]],
        what: str = "evaluate",
    ):
        self._progress, self._watch = progress, watch
        if progress is not None:
            progress.start(sum(len(part) for share in shares for part in share), what)

    def advance(self, token: str, waiting: float) -> None:
        """One more here, and what the others have done."""
        if self._progress is not None:
            new = 1 + self._watch.count_new()
            self._progress.advance(new, note=f"sample {token}", waiting=waiting)

    def refresh(self) -> None:
        """What the others have done."""
        new = self._watch.count_new()
        if self._progress is not None and new:
            self._progress.advance(new, note="waiting for the other ranks")

    def close(self) -> None:
        """Ends the display."""
        if self._progress is not None:
            self._progress.close()


@contextmanager
def planned(rank: Rank, folder: Path) -> Iterator[Plan | None]:
    """What rank 0 has planned, while another rank works for it; nothing if it has no share.

    Raises:
        ResultsError: the folder is not the one that rank 0 writes to.
        RunError: rank 0 ended before it had divided the work, or hangs.
    """
    meeting = Meeting(rank)
    with meeting.heartbeats():
        plan = meeting.plan()
        if not plan.shares[rank.rank]:
            meeting.arrive()
            yield None
            return
        with RunFolder(folder).joined(plan.job):
            meeting.arrive()
            yield plan


def wait_for_ranks(folder: RunFolder, meeting: Meeting, tally: Tally) -> list[int]:
    """Until the other ranks have ended, in whatever way; gives those that were lost.

    Each holds a lock while it works, which the system takes from it when it dies. One that
    sends no heartbeats is waited for until it counts as lost. Those without work are waited for
    too: the store that holds their plan may end with this process.

    Raises:
        RunError: a lost rank holds its lock, and may wake up.
    """
    others, notice = range(1, meeting.size), WaitNotice("rank 0")
    while True:
        absent, lost = meeting.absent(others), meeting.lost(others)
        at_work = folder.others_at_work()
        tally.refresh()  # after that, so that the last rows are counted too
        awaited = [rank for rank in others if rank not in {*lost, *meeting.ended(others)}]
        if not awaited or not (at_work or set(absent) - set(lost)):
            break
        notice.waits_for(awaited)
        time.sleep(POLL)
    if lost and at_work:
        raise RunError(
            f"{names(lost)} {NO_HEARTBEAT.format(LOST_AFTER)}. All finished rows are kept; end "
            "that process and start the same command again, which goes on from there"
        )
    return lost


def require_all(done: int, last: int, lost: Sequence[int] = ()) -> None:
    """Refuses to make tables of rows that are not all there.

    Args:
        lost: ranks that sent no heartbeats.

    Raises:
        RunError: another rank ended early.
    """
    if done < last:
        missing = f"{names(lost)} {NO_HEARTBEAT.format(LOST_AFTER)}"
        raise RunError(
            f"rows are missing from position {done} of {last} on: "
            f"{missing if lost else 'another rank ended early; see its log'}. All finished rows "
            "are kept; the same command goes on from there, with any number of processes"
        )
