"""The samples of ``lmd score`` and ``detect``, shared out among the ranks of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmd_cli.evaluation.schedule import divide
from lmd_cli.evaluation.walk import Stopwatch
from lmd_cli.results.finished import FinishedSamples
from lmd_cli.results.pair_rows import Watch
from lmd_cli.results.record import require_same_ranks
from lmd_cli.runtime.meeting import Meeting
from lmd_cli.runtime.progress import Progress
from lmd_cli.runtime.ranks import Plan
from lmd_cli.workflows.ranks import Tally, require_all, wait_for_ranks


@dataclass(frozen=True)
class SharedSamples:
    """What each process does at its samples.

    Attributes:
        finished: where a sample's entry goes.
        entry: of the sample with a number.
        tokens: of all samples.
        stopwatch: of this process.
    """

    finished: FinishedSamples
    entry: Callable[[int], Mapping[str, Any]]
    tokens: Sequence[str]
    stopwatch: Stopwatch

    def finish(
        self,
        what: str,
        record: Mapping[str, Any],
        count: int,
        progress: Progress,
        meeting: Meeting | None,
    ) -> None:
        """Takes the samples that are missing, with the other ranks.

        Args:
            what: is done, in a word.
            record: what the other ranks must agree with.
            count: of the samples that are wanted.

        Raises:
            RunError: another rank ended early.
        """
        done = self.finished.merge()
        todo = self.finished.missing(done, count)
        shares = divide(todo, 1 if meeting is None else meeting.size)
        if meeting is not None:
            meeting.publish(Plan(self.finished.job, dict(record), shares))
        others = [self.finished.stretch(part.start).path for share in shares[1:] for part in share]
        tally, lost = Tally(progress, Watch(others, headers=0), shares, what), []
        try:
            for part in shares[0]:
                self._work(part, None if part.start == done else part.start, tally.advance)
            if meeting is not None:
                lost = wait_for_ranks(self.finished.folder, meeting, tally)
        finally:
            tally.close()
        require_all(self.finished.merge(), count, lost)

    def contribute(self, plan: Plan, record: Mapping[str, Any], rank: int) -> None:
        """Takes a rank's share of the samples that rank 0 has divided.

        Args:
            record: what rank 0 must agree with.

        Raises:
            ResultsError: this rank would compute something else.
        """
        require_same_ranks(plan.record, record, rank)
        for part in plan.shares[rank]:
            self._work(part, part.start)

    def _work(
        self, part: range, first: int | None, tell: Callable[[str, float], None] | None = None
    ) -> None:
        """Takes a range of samples; their lines go to the stretch that begins at ``first``."""
        for index in part:
            self.finished.append(self.entry(index), first)
            if tell is not None:
                tell(self.tokens[index], self.stopwatch.waiting_share)
