"""The viewer's data: maps as whole numbers, base64, for ``templates/viewer.js`` to add up."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    plane = survey.plane
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
        "samples": [_sample(one) for one in shown],
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


def _sample(one: Shown) -> dict[str, Any]:
    quantised = [quantise(part) for part in one.parts]
    return {
        "token": one.token,
        "scene": one.scene,
        "description": one.description,
        "scales": [scale for _, scale in quantised],
        "maps": _text(b"".join(values.tobytes() for values, _ in quantised)),
        "truth": _text(np.packbits(one.truth).tobytes()),
        "outlines": np.round(one.outlines, 2).tolist(),
        "images": [
            {"camera": label(camera), "src": f"data:image/jpeg;base64,{_text(data)}"}
            for camera, data in one.images.items()
        ],
    }


def label(camera: str) -> str:
    """``CAM_FRONT_LEFT`` as ``front left``."""
    return camera.removeprefix("CAM_").replace("_", " ").lower()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
