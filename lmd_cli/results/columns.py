"""The columns of a run's tables: names, types and meanings, for frames and for the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: As pandas' nullable types: text, whole numbers, numbers, yes or no.
Kind = Literal["str", "int", "float", "bool"]
DTYPES = {"str": "string", "int": "Int64", "float": "float64", "bool": "boolean"}


@dataclass(frozen=True)
class TableColumns:
    """One table of a run.

    Attributes:
        file: in the run's folder.
        made_by: the command that writes it.
        columns: kind and meaning by name.
        patterns: the same for names that depend on the network's parts, by their beginning; the
            empty one is a part's own name.
    """

    file: str
    made_by: str
    columns: dict[str, tuple[Kind, str]]
    patterns: dict[str, tuple[Kind, str]]

    def kind(self, name: str) -> Kind:
        """The kind of a column."""
        return self._entry(name)[0]

    def meaning(self, name: str) -> str:
        """What a column says."""
        return self._entry(name)[1]

    def _entry(self, name: str) -> tuple[Kind, str]:
        if name in self.columns:
            return self.columns[name]
        begins = sorted(self.patterns, key=len, reverse=True)
        return self.patterns[next(begin for begin in begins if name.startswith(begin))]


_SAMPLE: dict[str, tuple[Kind, str]] = {"sample_token": ("str", "the sample")}
_COMPARED: dict[str, tuple[Kind, str]] = {
    "variant": ("str", "rules of LMD, or another method"),
    "perturbed": ("str", "modalities that were replaced, joined by +"),
    "target": ("str", "modality whose part is compared"),
}
_INTERVAL: dict[str, tuple[Kind, str]] = {
    "modality": ("str", "the modality; empty for a score over all"),
    "estimate": ("float", "the score"),
    "low": ("float", "lower end of the 95 % interval; empty with fewer than 10 objects"),
    "high": ("float", "upper end of the 95 % interval"),
    "vehicles": ("int", "vehicles that count"),
    "objects": ("int", "objects that carry it: of an AUROC, of its smaller class"),
    "undefined": ("int", "resamples without a score"),
}

TABLES = {
    "metrics": TableColumns(
        "metrics.csv",
        "lmd evaluate",
        {
            **_COMPARED,
            "expected": ("str", "keep or change: what the part should do"),
            "pcc_mean": ("float", "Pearson correlation, mean over the pairs"),
            "pcc_std": ("float", "its standard deviation (ddof 0)"),
            "mse_mean": ("float", "mean squared error, mean over the pairs"),
            "mse_std": ("float", "its standard deviation (ddof 0)"),
            "pairs": ("int", "pairs"),
            "undefined": ("int", "pairs without a correlation (a constant map)"),
        },
        {},
    ),
    "pairs": TableColumns(
        "pairs.csv",
        "lmd evaluate",
        {
            **_SAMPLE,
            "perturbed_token": ("str", "the sample that a modality is taken from"),
            "offset": ("int", "m in sample (k + stride * m) mod N"),
            **_COMPARED,
            "pcc": ("float", "correlation of the part before and after (NaN: a constant map)"),
            "mse": ("float", "mean squared difference of the part before and after"),
        },
        {},
    ),
    "samples": TableColumns(
        "samples.csv",
        "lmd evaluate",
        {
            "position": ("int", "in the order of the walk, from 0"),
            **_SAMPLE,
            "status": ("str", "ok, or why it was skipped"),
            "pairs": ("int", "its rows in pairs"),
            "missing_partners": ("str", "tokens of partners that could not be read"),
            "intersection": ("int", "vehicle cells predicted and annotated"),
            "union": ("int", "vehicle cells predicted or annotated"),
            "residual": ("float", "max |total - sum of parts| / max |total|, largest of the rules"),
            "replay_deviation": ("float", "parts against a literal replay; first samples only"),
        },
        {},
    ),
    "objects": TableColumns(
        "survey/objects.csv",
        "lmd report",
        {
            **_SAMPLE,
            "scene": ("str", "its scene"),
            "rain": ("bool", "the scene's description says rain"),
            "night": ("bool", "the scene's description says night"),
            "token": ("str", "the annotation"),
            "instance": ("str", "the vehicle over time; empty where nobody knows"),
            "category": ("str", "nuScenes' category"),
            "right": ("float", "of the reference camera, metres"),
            "forward": ("float", "of the reference camera, metres"),
            "distance": ("float", "from the reference camera on the ground, metres"),
            "visibility": ("int", "nuScenes' level, 1 to 4"),
            "num_lidar_pts": ("int", "LiDAR points in the box"),
            "num_radar_pts": ("int", "radar points in the box"),
            "speed": ("float", "m/s"),
            "cells": ("int", "cells of its footprint"),
            "inside": ("bool", "any cell lies on the map"),
            "sought": ("bool", "it is of the output's class"),
            "annotated": ("bool", "it is an annotation; else a detection without one"),
            "enough_by_parts": ("str", "the sensor whose part is enough, or another verdict"),
            "enough_by_removal": (
                "str",
                "the sensor that alone still detects it, or another verdict",
            ),
            "total": ("float", "mean logit of the prediction over the footprint"),
            "detected": ("bool", "the network detects it"),
            "score": ("float", "what is compared with the detection threshold"),
        },
        {
            "part_": ("float", "mean logit of the part over the footprint"),
            "detected_": ("bool", "detected with these modalities removed"),
            "score_": ("float", "score with these modalities removed"),
        },
    ),
    "layers": TableColumns(
        "survey/layers.csv",
        "lmd report",
        {
            "order": ("int", "position in the run, from 0"),
            "module": ("str", "qualified name of the module"),
            "operation": ("str", "torch's operation"),
        },
        {"share_": ("float", "the part's share of the L2 norms, mean over the samples")},
    ),
    "scores": TableColumns(
        "score/score.csv",
        "lmd score",
        {"method": ("str", "the method"), "score": ("str", "which score"), **_INTERVAL},
        {},
    ),
    "vehicles": TableColumns(
        "score/vehicles.csv",
        "lmd score",
        {
            "method": ("str", "the method"),
            "annotation_token": ("str", "the annotation"),
            "instance_token": ("str", "the object over time"),
            "detected": ("bool", "the network detects it"),
        },
        {
            "seen_by_": ("bool", "the modality could see it"),
            "": ("float", "evidence of a modality, or a part's mean logit over the footprint"),
        },
    ),
}
