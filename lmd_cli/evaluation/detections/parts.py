"""What each sensor's part says at the place where a detection is decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lmd_cli.config.schema import RunConfig, SimpleBEVConfig
from lmd_cli.evaluation.ground.decisive import MISSED, SEVERAL, TOGETHER, sufficient
from lmd_cli.evaluation.ground.detection import (
    MEAN_PROBABILITY,
    PEAK_PROBABILITY,
    PROBABILITY,
)
from lmd_cli.networks.detections import Place

#: Of a false alarm that falls whichever sensor is missing, and of one that none can undo.
ANY, NONE = "any", "none"
Maps = Mapping[str, Tensor]


def probability_of(config: RunConfig) -> float:
    """The score that a box must exceed: the config's ``detection``."""
    if config.detection != "auto":
        return config.detection
    segmentation = isinstance(config.model, SimpleBEVConfig)
    return MEAN_PROBABILITY if segmentation else PEAK_PROBABILITY


def threshold_of(place: Place, probability: float) -> float:
    """The same in the units of the output at a place: logits, unless it is a probability."""
    if place.output.partition(".")[0] == PROBABILITY:
        return probability
    return math.log(probability / (1 - probability))


def value_at(maps: Maps, place: Place) -> float:
    """An output's mean over a place's cells."""
    cells = maps[place.output][0, place.channel, place.rows, place.columns]
    return float(cells.double().mean())


def parts_at(parts: Mapping[str, Maps], place: Place) -> dict[str, float]:
    """Each part's value at a place."""
    return {name: value_at(maps, place) for name, maps in parts.items()}


def decisive(values: Mapping[str, float], sensors: Sequence[str], threshold: float) -> str:
    """Who alone would do, as :func:`~lmd_cli.evaluation.ground.decisive.verdict` says it."""
    if sum(values.values()) <= threshold:
        return MISSED
    able = sufficient(values, sensors, threshold)
    return able[0] if len(able) == 1 else SEVERAL if able else TOGETHER


def necessary(values: Mapping[str, float], sensors: Sequence[str], threshold: float) -> str:
    """The sensor without whose part the total is not above the threshold; :data:`ANY` of several,
    :data:`NONE`, or nothing where it is not above it."""
    total = sum(values.values())
    if total <= threshold:
        return MISSED
    needed = [name for name in sensors if total - values[name] <= threshold]
    return needed[0] if len(needed) == 1 else ANY if needed else NONE


def against(values: Mapping[str, float], sensors: Sequence[str]) -> str:
    """The sensor whose part is lowest."""
    return min(sensors, key=lambda name: values[name])


def needed_outputs(network: object, places: Sequence[Place]) -> list[str]:
    """Outputs that have something at the places, in order of appearance."""
    values = getattr(network, "values_at", None)
    names = [place.output for place in places]
    if values is not None:
        names += [v.output for place in places for v in values(place).values()]
    return list(dict.fromkeys(names))


Sense = Literal["decisive", "needs", "against"]
SENSES: tuple[Sense, ...] = ("decisive", "needs", "against")


def senses(values: Mapping[str, float], sensors: Sequence[str], threshold: float) -> dict[str, str]:
    """The three sensors of a place: who alone would do, who is needed, who speaks against."""
    return {
        "decisive": decisive(values, sensors, threshold),
        "needs": necessary(values, sensors, threshold),
        "against": against(values, sensors),
    }


def on_cpu(tree: Maps) -> dict[str, Tensor]:
    """Maps without gradients on the CPU."""
    return {name: value.detach().to("cpu", torch.float32) for name, value in tree.items()}
