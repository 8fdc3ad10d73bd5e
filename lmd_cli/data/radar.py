"""Radar: nuScenes' binary ``.pcd`` files, and the sweeps of the five radars put together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.database import RADARS, SampleRecord
from lmd_cli.data.files import data_file, file_error, read_bytes
from lmd_cli.data.frames import Matrix, move
from lmd_cli.data.sweeps import accumulate

#: The fields of a radar point, in the file's order.
FIELDS = (
    *("x", "y", "z", "dyn_prop", "id", "rcs", "vx", "vy", "vx_comp", "vy_comp"),
    *("is_quality_valid", "ambig_state", "x_rms", "y_rms", "invalid_state", "pdh0"),
    *("vx_rms", "vy_rms"),
)
_KIND = {"F": "f", "I": "i", "U": "u"}


@dataclass(frozen=True)
class RadarFilters:
    """States of radar points to keep; ``None`` keeps every state.

    nuscenes-devkit's default is ``RadarFilters((0,), range(7), (3,))``; SimpleBEV filters nothing.
    """

    invalid_states: Collection[int] | None = None
    dynprop_states: Collection[int] | None = None
    ambig_states: Collection[int] | None = None


def read_radar(
    path: Path | str, filters: RadarFilters | None = None, *, token: str | None = None
) -> NDArray[np.float64]:
    """Points of a radar ``.pcd`` file, (18, n) in the order of :data:`FIELDS`, sensor frame.

    The same values as nuscenes-devkit's ``RadarPointCloud.from_file``, without a loop over points
    and without its filters, which are globals there. A NaN in the first point means no points.

    Args:
        path: the file.
        filters: states to keep; all by default.
        token: the sample that needs the file, for the error message.

    Raises:
        DataError: the file is missing, truncated or not a nuScenes radar file.
    """
    path = Path(path)
    header, body = _split(path, read_bytes(path, token), token)
    try:
        dtype, width = _layout(header)
    except (LookupError, ValueError, TypeError) as error:
        raise file_error(path, f"not a nuScenes radar file: {error}", token) from error
    if len(body) < width * dtype.itemsize:
        found = len(body) // dtype.itemsize
        raise file_error(path, f"truncated: {found} of {width} radar points", token)
    table = np.frombuffer(body, dtype, count=width)
    points = np.stack([table[name].astype(np.float64) for name in FIELDS])  # (18, n)
    if width and np.isnan(points[:, 0]).any():
        return points[:, :0]
    return points[:, _kept(points, filters or RadarFilters())]


def _split(path: Path, content: bytes, token: str | None) -> tuple[dict[str, list[str]], bytes]:
    """The header as ``{first word: other words}``, and the bytes after its last line."""
    if not content:
        raise file_error(path, "truncated: the file is empty", token)
    header: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in header:
        end = content.find(b"\n", start)
        if end < 0:
            raise file_error(path, "truncated, or not a .pcd file: no DATA line", token)
        words = content[start:end].decode("ascii", "replace").split()
        if words:
            header[words[0]] = words[1:]
        start = end + 1
    return header, content[start:]


def _layout(header: dict[str, list[str]]) -> tuple[np.dtype, int]:
    """One point's memory layout, and the number of points."""
    expected = {"FIELDS": list(FIELDS), "COUNT": ["1"] * len(FIELDS), "HEIGHT": ["1"]}
    for key, words in {**expected, "DATA": ["binary"]}.items():
        if header[key] != words:
            raise ValueError(f"{key} is {' '.join(header[key])!r}, expected {' '.join(words)!r}")
    formats = zip(FIELDS, header["TYPE"], header["SIZE"], strict=True)
    dtype = np.dtype([(name, f"<{_KIND[kind]}{size}") for name, kind, size in formats])
    width = header["WIDTH"][0]
    if not width.isdecimal() or len(width) > 9:
        raise ValueError(f"WIDTH is {width[:40]!r}, expected a number of points")
    return dtype, int(width)


def _kept(points: NDArray[np.float64], filters: RadarFilters) -> NDArray[np.bool_]:
    """Which points (n,) pass every filter."""
    kept = np.ones(points.shape[1], dtype=bool)
    for field, states in (
        ("invalid_state", filters.invalid_states),
        ("dyn_prop", filters.dynprop_states),
        ("ambig_state", filters.ambig_states),
    ):
        if states is not None:
            kept &= np.isin(points[FIELDS.index(field)], list(states))
    return kept


def radar_points(
    root: Path, record: SampleRecord, filters: RadarFilters | None = None
) -> NDArray[np.float64]:
    """Sweeps of the five radars, (19, n): :data:`FIELDS`, then the time lag in seconds.

    Positions are in the ego frame at the time of RADAR_FRONT, metres; channels in the order of
    :data:`lmd_cli.data.database.RADARS`, each from the newest sweep to the oldest. Velocities stay
    in the frame of their own sensor, as SimpleBEV leaves them.

    Raises:
        DataError: a file is missing or damaged; names it and the sample.
    """
    sweeps = [sweep for channel in RADARS for sweep in record.radars[channel]]
    reference = record.radars["RADAR_FRONT"][0]
    clouds = [
        read_radar(data_file(root, s.filename, record.token), filters, token=record.token)
        for s in sweeps
    ]
    return accumulate(clouds, sweeps, reference)


def radar_for_network(points: Matrix, cam0_T_ego: Matrix) -> tuple[Matrix, Matrix]:
    """Positions (n + 1, 3) in the reference camera's axes, and features (n + 1, 16), float32.

    The last point is a padding point at the ego origin with all features zero. SimpleBEV pads
    every cloud with such points before it moves them to the camera, so that the voxel of the ego
    origin is always occupied: its occupancy networks were trained with that, and its networks on
    radar features see zeros there either way.

    Args:
        points: (19, n) as :func:`radar_points` gives them.
        cam0_T_ego: (4, 4) float32.
    """
    padded = np.pad(points.astype(np.float32), ((0, 0), (0, 1)))  # (19, n + 1)
    xyz = move(cam0_T_ego, padded[:3])  # (3, n + 1)
    return np.ascontiguousarray(xyz.T), np.ascontiguousarray(padded[3:].T)
