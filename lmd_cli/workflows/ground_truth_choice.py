"""Which ground truth methods are scored against: what was recorded, interventions, or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lmd_cli.config.schema import CustomDataConfig, DataConfig, RunConfig
from lmd_cli.data.synthetic import has_evidence
from lmd_cli.errors import MethodError
from lmd_cli.evaluation.ground.detection import criterion_of
from lmd_cli.evaluation.ground_truth import GroundTruth
from lmd_cli.evaluation.interventions import AnnotatedGroundTruth
from lmd_cli.workflows.ground_truth import ground_truth_of, regions_of, require_annotations

Kind = Literal["recorded", "intervention", "both"]


@dataclass(frozen=True)
class ChosenGroundTruth:
    """What methods are scored against.

    Attributes:
        kind: recorded ground truth, interventions, or both.
        objects: which objects there are, and what was recorded of them.
    """

    kind: Kind
    objects: GroundTruth

    @property
    def recorded(self) -> bool:
        """Whether there is recorded ground truth to score against."""
        return self.kind != "intervention"

    @property
    def intervenes(self) -> bool:
        """Whether objects are taken out of the data."""
        return self.kind != "recorded"


def choose_ground_truth(
    config: RunConfig, dataset: Any, asked: Kind | None = None
) -> ChosenGroundTruth:
    """The ground truth that is asked for; by default the recorded one where there is one, else
    interventions.

    Raises:
        MethodError: a data set of the user's own that lacks what is asked for.
        DataError: a root without annotations, or without recorded ground truth where that is asked
            for.
    """
    if isinstance(config.data, DataConfig):
        require_annotations(config.data, dataset)
        there = has_evidence(dataset.dataroot / config.data.version)
        kind = asked or ("recorded" if there else "intervention")
        if kind == "intervention":
            output = config.model.output
            criterion = criterion_of(output, config.detection)
            annotated = AnnotatedGroundTruth(dataset, output, criterion, config.model.modalities)
            return ChosenGroundTruth(kind, annotated)
        return ChosenGroundTruth(kind, ground_truth_of(config, dataset))
    if not _graded(dataset) and asked in (None, "intervention") and _removes(dataset):
        return ChosenGroundTruth("intervention", regions_of(config, dataset, graded=False))
    kind = asked or "recorded"
    truth = ground_truth_of(config, dataset)
    if kind != "recorded" and not _removes(dataset):
        assert isinstance(config.data, CustomDataConfig)
        raise MethodError(
            f"--truth {kind} takes objects out of one modality's data, and {config.data.target} "
            "does not say how: give its data set a method remove(index, object, modality) (see "
            "docs/extending.md)"
        )
    return ChosenGroundTruth(kind, truth)


def _removes(dataset: Any) -> bool:
    return bool(getattr(dataset, "removes", False))


def _graded(dataset: Any) -> bool:
    """Whether a data set's first region says how much evidence there was."""
    if getattr(dataset, "regions", None) is None or dataset.regions(0) is None:
        return False
    for index in range(len(dataset)):
        for region in dataset.regions(index):
            return bool(getattr(region, "evidence", True))
    return True
