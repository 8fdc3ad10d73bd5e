"""The pass over a run's samples behind ``lmd report``: objects, layers and maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lmd_cli.evaluation.ground.plane import Plane
from lmd_cli.evaluation.ground.removal import Removal
from lmd_cli.results.survey import Draft, Survey
from lmd_cli.runtime.progress import Progress, Silent
from lmd_cli.workflows.ready import Ready


class Keeper(Protocol):
    """Where a draft is kept, so that a survey that is cut off goes on."""

    def read(self, viewer: int) -> Draft:
        """The draft that is kept, or an empty one."""

    def write(self, draft: Draft) -> None:
        """Keeps the draft; called after each sample."""


def survey(
    ready: Ready,
    tokens: Sequence[str],
    plane: Plane | None,
    *,
    viewer: int,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
    partner: Callable[[int], int] | None = None,
    compared: Callable[[int], int] | None = None,
) -> Survey:
    """Decomposes the samples one after another.

    Args:
        ready: data and network.
        tokens: samples, in the order of the evaluation.
        plane: where the output's maps lie; none if not on the ground.
        viewer: how many of the first samples to keep for the viewer, beside the
            :data:`DISAGREEING` where the sensors disagree most.
        progress: where to show progress.
        keeper: holds what is done already, and takes what is done here.
        partner: from the index of a sample to that of the sample whose features take the place of
            a removed sensor's; zeros do if none.
        compared: the same of the sample with whose sensors the parts are compared, as in the run's
            tables; none if these have the survey's rules.

    Raises:
        DataError: a sample is unknown or its files are damaged.
    """
    draft = keeper.read(viewer) if keeper is not None else Draft(viewer)
    left, progress = tokens[len(draft.samples) :], progress or Silent()
    progress.start(len(left), "survey")
    try:
        for token in left:
            index = ready.dataset.index_of(token)
            other, beside = (each and each(index) for each in (partner, compared))
            draft.add(ready.decompose(index, other, beside), index, plane)
            if keeper is not None:
                keeper.write(draft)
            progress.advance(note=f"sample {token}", waiting=ready.stopwatch.waiting_share)
    finally:
        progress.close()
    output = (ready.config.model.output, ready.config.detection)
    removal: Removal = "zeroed" if partner is None else "replaced"
    return draft.survey(plane, ready.variant, *output, removal)
