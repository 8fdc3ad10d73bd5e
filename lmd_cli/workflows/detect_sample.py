"""One sample of ``lmd detect``: its boxes, their matches, and each sensor's parts of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmd_cli.assembly.build import BuiltNetwork, Samples
from lmd_cli.assembly.detections import detections
from lmd_cli.assembly.forward import fuse_several
from lmd_cli.attribution import Method, parts
from lmd_cli.config.schema import RunConfig
from lmd_cli.data import Box3D, NuScenesSamples
from lmd_cli.data.custom import CustomSamples
from lmd_cli.data.nuscenes.submission import submission_boxes
from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.evaluation.detections.candidates import (
    Candidate,
    annotated,
    outside_racks,
    predicted,
)
from lmd_cli.evaluation.detections.matching import Match, Rule, match_centres, match_overlaps
from lmd_cli.evaluation.detections.parts import (
    Maps,
    needed_outputs,
    on_cpu,
    parts_at,
    probability_of,
    value_at,
)
from lmd_cli.evaluation.ground.vehicles import Weather
from lmd_cli.networks import SimpleBEV
from lmd_cli.networks.detections import Place
from lmd_cli.runtime.stopwatch import Stopwatch
from lmd_cli.workflows.ready import encode


@dataclass(frozen=True)
class Setting:
    """What is detected, and with what.

    Attributes:
        variants: rules of LMD whose parts are wanted.
        methods: others whose parts are wanted.
    """

    config: RunConfig
    built: BuiltNetwork
    dataset: Samples
    device: torch.device
    threads: int
    variants: tuple[str, ...] = ()
    methods: tuple[Method, ...] = ()
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def rule(self) -> Rule:
        """How boxes are matched with annotations."""
        return match_overlaps if self.is_segmentation else match_centres

    @property
    def is_segmentation(self) -> bool:
        """Whether boxes are instances of a segmentation."""
        return isinstance(self.built.network, SimpleBEV)

    @property
    def matched(self) -> bool:
        """Whether there are annotations to match with."""
        return not isinstance(self.dataset, CustomSamples) and self.dataset.annotated

    @property
    def names(self) -> list[str]:
        """Names of variants and methods."""
        return [*self.variants, *(method.name for method in self.methods)]


def sample_entry(setting: Setting, index: int) -> dict[str, Any]:
    """A sample's line among the finished.

    Raises:
        DataError: a file is missing or damaged.
        ContractError, CheckpointError: see :func:`~lmd_cli.assembly.detections.detections`.
    """
    dataset, network = setting.dataset, setting.built.network
    token = dataset.tokens[index]
    with setting.stopwatch.reading():
        sample = dataset[index]
    precision = setting.config.compute.precision
    features, constants = encode(network, [sample], setting.device, precision)
    made = detections(network, features, constants, token)
    boxes, scores = (x.double().cpu().numpy() for x in (made.boxes, made.scores))
    pose = _pose(setting, index)
    truth, instances = _annotations(setting, index)
    candidates, matches = _matched(setting, predicted(made, probability_of(setting.config)), truth)
    explained = _explained(setting, candidates, features, constants)
    weather = Weather.of(dataset.descriptions[index])
    return {
        "sample": token,
        "scene": dataset.scenes[index],
        "rain": int(weather.rain),
        "night": int(weather.night),
        "boxes": submission_boxes(token, boxes, scores, made.names, pose),
        "detections": [
            {**_facts(candidate, match, candidates, instances), **said}
            for candidate, match, said in zip(candidates, matches, explained, strict=True)
        ],
    }


def _pose(setting: Setting, index: int) -> NDArray[np.float64]:
    """Where the boxes' frame is, (4, 4)."""
    dataset = setting.dataset
    if setting.is_segmentation and isinstance(dataset, NuScenesSamples):
        return dataset.global_T_map(index)
    return dataset.global_T_ego(index)


def _annotations(setting: Setting, index: int) -> tuple[list[Box3D] | None, dict[str, str]]:
    """What boxes are matched with, if there is anything, and the object of each by its token."""
    dataset = setting.dataset
    if isinstance(dataset, CustomSamples) or not dataset.annotated:
        return None, {}
    known = dataset.annotations(index)
    boxes = dataset.boxes_on_map(index, known)
    return boxes, {annotation.token: annotation.instance for annotation in known}


def _matched(
    setting: Setting, boxes: list[Candidate], annotations: Sequence[Box3D] | None
) -> tuple[list[Candidate], list[Match]]:
    """Boxes and annotations in one list, with what became of each; ``other`` counts in it."""
    if annotations is None:
        return boxes, [Match("") for _ in boxes]
    truth = annotated(setting.built.network, annotations)
    boxes, truth = (outside_racks(some, annotations) for some in (boxes, truth))
    of_boxes, of_truth = setting.rule(boxes, truth)
    behind = [
        Match(m.outcome, None if m.other is None else m.other + len(boxes), m.closeness)
        for m in of_boxes
    ]
    return [*boxes, *truth], [*behind, *of_truth]


def _facts(
    candidate: Candidate,
    match: Match,
    candidates: Sequence[Candidate],
    instances: Mapping[str, str],
) -> dict[str, Any]:
    """What is known of a box or an annotation, in plain values."""
    own = candidate.annotation
    other = None if match.other is None else candidates[match.other].annotation
    known = own or other
    facts = {
        "kind": "box" if own is None else "annotation",
        "class": candidate.name,
        "score": candidate.score,
        "box": list(candidate.box),
        "distance": candidate.distance,
        "speed": candidate.speed,
        "outcome": match.outcome,
        "other": match.other,
        "closeness": match.closeness,
        **_of_annotation(known, instances),
    }
    return {name: _known(value) for name, value in facts.items()}


def _of_annotation(known: Any, instances: Mapping[str, str]) -> dict[str, Any]:
    """Of the annotation that it is, or is matched with."""
    return {
        "annotation": "" if known is None else known.token,
        "instance": "" if known is None else instances.get(known.token, ""),
        "category": "" if known is None else known.category,
        "visibility": None if known is None else known.visibility,
        "num_lidar_pts": None if known is None else known.num_lidar_pts,
        "num_radar_pts": None if known is None else known.num_radar_pts,
    }


def _known(value: Any) -> Any:
    """NaN, which JSON does not have, as null."""
    if isinstance(value, list):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _explained(
    setting: Setting,
    candidates: Sequence[Candidate],
    features: Mapping[str, Any],
    constants: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """For each candidate where it is decided, the output there, and each method's parts of it."""
    network = setting.built.network
    places = [c.place for c in candidates if c.place is not None]
    if not places or not setting.names:
        return [_said(setting, c, {}, {}) for c in candidates]
    fuse = fuse_several(network, needed_outputs(network, places), constants)
    by_method: dict[str, dict[str, Maps]] = {}
    total: Maps = {}
    for variant in setting.variants:
        result = decompose(
            *(fuse, features, variant), root=network, bilinear=setting.config.bilinear
        )
        total = on_cpu(result.total)
        trees = {**result.parts, BIAS: result.bias}
        if setting.config.bilinear == INTERACTION:
            trees[INTERACTION] = result.interaction
        by_method[variant] = {name: on_cpu(tree) for name, tree in trees.items()}
    for method in setting.methods:
        trees = parts(method, fuse, features)
        by_method[method.name] = {name: on_cpu(tree) for name, tree in trees.items()}
    if not total:
        with torch.no_grad():
            total = on_cpu(fuse(**features))
    return [_said(setting, c, total, by_method) for c in candidates]


def _said(
    setting: Setting,
    candidate: Candidate,
    total: Maps,
    by_method: Mapping[str, Mapping[str, Maps]],
) -> dict[str, Any]:
    place = candidate.place
    if place is None:
        return {"place": None}
    where = [place.output, place.channel, len(place.rows)]
    middle = [float(place.rows.mean()), float(place.columns.mean())]
    said: dict[str, Any] = {"place": [*where, *middle]}
    if not by_method:
        return said
    find = getattr(setting.built.network, "values_at", None)
    values: dict[str, Place] = {} if find is None else find(place)
    return {
        **said,
        "logit": value_at(total, place),
        "parts": {name: parts_at(maps, place) for name, maps in by_method.items()},
        "values": {
            name: {
                "total": value_at(total, at),
                "parts": {method: parts_at(maps, at) for method, maps in by_method.items()},
            }
            for name, at in values.items()
        },
    }
