"""The viewer's data: maps as whole numbers, base64, for ``templates/viewer.js`` to add up."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmd_cli.report.figures.projection import NOWHERE
from lmd_cli.report.page.vehicle_charts import lost_without, objects_of
from lmd_cli.report.palette import slot
from lmd_cli.results.survey import Shown, Survey

#: Largest magnitude of a quantised value, 16 bits.
LEVELS = 32767
#: The colour scale's end: this share of all predictions' cells lies within it.
QUANTILE = 0.999


def quantise(values: NDArray[np.floating]) -> tuple[NDArray[np.int16], float]:
    """Values as integers times a scale; each is off by at most half a scale.

    Returns:
        little-endian int16 of the same shape, and the scale.
    """
    top = float(np.abs(values).max(initial=0.0))
    scale = top / LEVELS if top > 0 else 1.0
    return np.round(values / scale).astype("<i2"), scale


def viewer_data(survey: Survey, shown: list[Shown]) -> dict[str, Any]:
    """Plain values for the page's JSON.

    ``shifted`` says that the masks' corners were truncated to whole cells (SimpleBEV's are).
    ``samples[i].maps`` are the parts one after the other, rows from the rearmost; ``truth`` is one
    bit a cell, most significant first.
    """
    plane, objects = survey.plane, objects_by_sample(survey)
    if not survey.ground:  # the page draws from the bottom up, pixels count from the top down
        shown = [
            replace(one, parts=one.parts[:, ::-1], truth=np.ascontiguousarray(one.truth[::-1]))
            for one in shown
        ]
    return {
        "ground": survey.ground,
        "rows": plane.rows,
        "columns": plane.columns,
        "extent": plane.extent,
        "ego": plane.ego,
        "shifted": survey.output == "segmentation",
        "parts": [{"name": name, "slot": slot(name, survey.parts)} for name in survey.parts],
        "limits": colour_limits(shown),
        "samples": [_sample(one, objects.get(one.token, [])) for one in shown],
    }


def colour_limits(shown: list[Shown]) -> dict[str, float]:
    """Ends of the colour scales, each one for every map of every sample, in logits.

    ``signed`` is symmetric; ``positive`` is for positive values alone.
    """
    totals = np.concatenate([one.parts.sum(axis=0).ravel() for one in shown] or [np.zeros(1)])
    positive = totals[totals > 0]
    return {
        "signed": float(np.quantile(np.abs(totals), QUANTILE)) or 1.0,
        "positive": float(np.quantile(positive, QUANTILE)) if positive.size else 1.0,
    }


def _sample(one: Shown, objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    quantised = [quantise(part) for part in one.parts]
    return {
        "token": one.token,
        "scene": one.scene,
        "description": one.description,
        "moment": one.moment,
        "objects": [_object(each, one) for each in objects],
        "scales": [scale for _, scale in quantised],
        "maps": _text(b"".join(values.tobytes() for values, _ in quantised)),
        "truth": _text(np.packbits(one.truth).tobytes()),
        "outlines": np.round(one.outlines, 2).tolist(),
        "images": [
            {"camera": label(camera), "src": f"data:image/jpeg;base64,{_text(data)}"}
            for camera, data in one.images.items()
        ],
    }


def objects_by_sample(survey: Survey) -> dict[str, list[dict[str, Any]]]:
    """What the viewer marks: vehicles, then detections without an annotation."""
    sensors = survey.sensors
    grouped: dict[str, list[dict[str, Any]]] = {}
    for each in objects_of(survey):
        each["lost"] = [survey.parts.index(name) for name in lost_without(each, sensors)]
        grouped.setdefault(each["sample_token"], []).append(each)
    return grouped


def _object(each: Mapping[str, Any], one: Shown) -> dict[str, Any]:
    """``marks`` names the parts' places: by removal those without which it is lost, by parts the
    one that is enough; ``frame``: image, left, top, right, bottom."""
    frames = one.frames.tolist()
    frame = frames[each["number"]] if each["number"] < len(frames) else NOWHERE
    return {
        "name": each["token"],
        "annotated": each["annotated"],
        "place": [round(each["right"], 2), round(each["forward"], 2)],
        "inside": each["inside"],
        "removal": each["lost"],
        "parts": each["enough_by_parts"],
        "frame": [round(value, 1) for value in frame] if frame[0] >= 0 else None,
    }


def label(camera: str) -> str:
    """``CAM_FRONT_LEFT`` as ``front left``."""
    return camera.removeprefix("CAM_").replace("_", " ").lower()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
