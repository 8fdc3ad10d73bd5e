"""What ``lmd score`` works on: network, data, methods, and the ground truth for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from lmd_cli.assembly.build import BuiltNetwork
from lmd_cli.attribution import Method
from lmd_cli.config.schema import CustomDataConfig, CustomModelConfig, DataConfig, RunConfig
from lmd_cli.data import RemovalSettings
from lmd_cli.data.nuscenes.index.splits import split_name
from lmd_cli.data.synthetic import has_evidence, read_evidence, read_instances
from lmd_cli.errors import DataError, MethodError
from lmd_cli.evaluation.ground.detection import criterion_of
from lmd_cli.evaluation.ground.footprints import require_vehicle_logits
from lmd_cli.evaluation.scores.ground_truth import (
    GroundTruth,
    RegionGroundTruth,
    SyntheticGroundTruth,
)
from lmd_cli.evaluation.scores.interventions import AnnotatedGroundTruth, Interventions
from lmd_cli.runtime.stopwatch import Stopwatch

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


@dataclass(frozen=True)
class Setting:
    """What is scored, resolved once; ``strict`` if every method must explain the network."""

    config: RunConfig
    built: BuiltNetwork
    dataset: Any
    device: torch.device
    truth: ChosenGroundTruth
    threads: int
    methods: list[Method]
    strict: bool
    removal: RemovalSettings
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def interventions(self) -> Interventions | None:
        """How objects are taken out of the data, if they are."""
        if not self.truth.intervenes:
            return None
        return Interventions(
            *(self.built.network, self.dataset, self.truth.objects, self.output),
            *(self.removal, self.device, self.config.compute.precision),
        )

    @property
    def output(self) -> str:
        """The output that is explained."""
        return self.config.model.output


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


def require_annotations(data: DataConfig, dataset: Any) -> None:
    """Refuses a root of which nothing can be scored.

    Raises:
        DataError: no sample of the split has annotations.
    """
    if not dataset.annotated:
        raise DataError(
            f"{dataset.dataroot} has no annotations of split {split_name(data.split)}: nothing "
            "can be scored. lmd evaluate, decompose and sanity need none"
        )


def ground_truth_of(config: RunConfig, dataset: Any) -> GroundTruth:
    """The ground truth of a config's samples.

    Raises:
        MethodError: an output without vehicle logits, or a data set that gives no regions.
        DataError: the root is not synthetic, or has no annotations.
    """
    model, data = config.model, config.data
    if isinstance(data, DataConfig):
        require_annotations(data, dataset)
        tables = dataset.dataroot / data.version
        evidence, instances = read_evidence(tables), read_instances(tables)
        criterion = criterion_of(model.output, config.detection)
        return SyntheticGroundTruth(dataset, model.output, criterion, evidence, instances)
    regions = getattr(dataset, "regions", None)
    if regions is None or regions(0) is None:
        raise MethodError(
            f"scores need to know what each modality could see, and {data.target} does not say: "
            "give its data set a method regions(index) (see docs/extending.md)"
        )
    return regions_of(config, dataset)


def regions_of(config: RunConfig, dataset: Any, *, graded: bool = True) -> RegionGroundTruth:
    """The regions of a custom data set; not ``graded`` are those whose evidence nobody knows."""
    model = config.model
    channel = model.channel if isinstance(model, CustomModelConfig) else 0
    criterion = criterion_of("regions", config.detection)
    return RegionGroundTruth(dataset, tuple(model.modalities), channel, criterion, graded)


def require_ground_truth(config: RunConfig) -> None:
    """Refuses at once what :func:`ground_truth_of` would refuse after the data is open.

    Raises:
        MethodError: an output without vehicle logits.
    """
    if not isinstance(config.data, CustomDataConfig) and not isinstance(
        config.model, CustomModelConfig
    ):
        require_vehicle_logits(config)
