"""Checks that the arrays of an index's file fit together.

A file that was forged, or damaged where no checksum looks, must not make us follow numbers that
lead nowhere: then it counts as damaged, and the index is made again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.index.annotations import ANNOTATION, OTHERS
from lmd_cli.data.nuscenes.index.frames import CALIBRATION, FRAME
from lmd_cli.data.nuscenes.index.storage import INVALID, Arrays, DamagedError
from lmd_cli.data.nuscenes.index.tables import SAMPLE

#: The arrays, their first column, and the others.
TABLES: dict[str, tuple[str, list[Any]]] = {
    "samples": ("token", SAMPLE),
    "frames": ("filename", FRAME),
    "annotations": ("token", ANNOTATION),
    "others": ("token", ANNOTATION),
}
#: Rows whose names are decoded at a time: all of a split's would take 25 MB.
_PIECE = 2**12
#: Lists of texts beside the arrays.
_NAMES = ("categories", "instances", "problems")


def require_sound(arrays: Arrays, meta: Any) -> None:
    """Refuses arrays of other types, and row numbers that lead nowhere.

    Args:
        arrays: by name.
        meta: the other values.

    Raises:
        DamagedError: says which.
    """
    try:
        _require_types(arrays, meta)
        _require_rows(arrays, meta)
    except INVALID as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from error


def _require_rows(arrays: Arrays, meta: Any) -> None:
    samples, frames, annotations, others = (arrays[name] for name in TABLES)
    key_frames, lacking = arrays["key_frames"], -1 - len(meta["problems"])
    _require("scene", samples["scene"], 0, len(meta["scenes"]))
    _require("problem", samples["problem"], lacking, 0)
    _require("key_frames", key_frames, lacking, len(frames))
    _require("prev", arrays["prev"], lacking, len(frames))
    _require("calibration", frames["calibration"], 0, len(arrays["calibrations"]))
    _require("problem", arrays["others_of"]["problem"], -1 - len(meta["others"]["problems"]), 0)
    ranges = (samples["first_annotation"], samples["annotations"])
    _require_boxes(annotations, meta, *ranges)
    ranges = (arrays["others_of"]["first"], arrays["others_of"]["count"])
    _require_boxes(others, meta["others"], *ranges)


def _require_boxes(
    rows: NDArray[Any], names: Any, first: NDArray[Any], count: NDArray[Any]
) -> None:
    """Annotations of which each sample has some."""
    _require("category", rows["category"], 0, len(names["categories"]))
    _require("instance", rows["instance"], 0, len(names["instances"]))
    _require("annotations", count, 0, len(rows) + 1)
    _require("first_annotation", first, 0, len(rows) - count + 1)


def _require_types(arrays: Arrays, meta: Any) -> None:
    for name, (first, fields) in TABLES.items():
        dtype = arrays[name].dtype
        if not dtype.names or dtype.names[0] != first or dtype[first].kind != "S":
            raise DamagedError(f"the columns of {name}")
        if dtype != np.dtype([(first, dtype[first]), *fields]) or arrays[name].ndim != 1:
            raise DamagedError(f"the columns of {name}")
        for start in range(0, len(arrays[name]), _PIECE):
            arrays[name][first][start : start + _PIECE].tobytes().decode()  # or a ValueError
    if arrays["calibrations"].dtype != CALIBRATION or arrays["calibrations"].ndim != 1:
        raise DamagedError("the columns of calibrations")
    of_samples = arrays["others_of"]
    if of_samples.dtype != OTHERS or of_samples.shape != arrays["samples"].shape:
        raise DamagedError("the columns of others_of")
    if arrays["prev"].dtype != np.int32 or arrays["prev"].shape != arrays["frames"].shape:
        raise DamagedError("the column prev")
    scenes, channels = meta["scenes"], dict(meta["channels"])
    shape = (len(arrays["samples"]), len(channels))
    if arrays["key_frames"].dtype != np.int32 or arrays["key_frames"].shape != shape:
        raise DamagedError("the array key_frames")
    texts = [meta["version"], *channels, *channels.values()]
    texts += [text for name in ("absent", *_NAMES) for text in meta[name]]
    texts += [text for name in _NAMES for text in meta["others"][name]]
    texts += [text for name, description in scenes for text in (name, description)]
    if not all(isinstance(text, str) for text in texts):
        raise DamagedError("a text that is none")


def _require(name: str, rows: NDArray[Any], least: int, end: Any) -> None:
    if ((rows < least) | (rows >= end)).any():
        raise DamagedError(f"a row number in {name}")
