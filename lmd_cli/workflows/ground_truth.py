"""The ground truth of a config's samples, read from where it lies."""

from __future__ import annotations

from typing import Any

from lmd_cli.config.schema import CustomDataConfig, CustomModelConfig, DataConfig, RunConfig
from lmd_cli.data.nuscenes.index.splits import split_name
from lmd_cli.data.synthetic import read_evidence, read_instances
from lmd_cli.data.synthetic.planted import read_planted
from lmd_cli.errors import DataError, MethodError
from lmd_cli.evaluation.ground.detection import criterion_of
from lmd_cli.evaluation.ground.footprints import require_vehicle_logits
from lmd_cli.evaluation.ground_truth import GroundTruth, RegionGroundTruth, SyntheticGroundTruth
from lmd_cli.evaluation.planted import PlantedGroundTruth


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


def planted_of(config: RunConfig, dataset: Any) -> PlantedGroundTruth | None:
    """The planted false alarms of a synthetic root, if it has any.

    Raises:
        DataError: their table is damaged.
    """
    model, data = config.model, config.data
    if not isinstance(data, DataConfig):
        return None
    planted = read_planted(dataset.dataroot / data.version)
    criterion = criterion_of(model.output, config.detection)
    known = (criterion, planted, model.modalities)
    return PlantedGroundTruth(dataset, model.output, *known) if planted else None


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
