"""Radar: ``.pcd`` files, and the sweeps of all radars put together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.nuscenes.database import SampleRecord
from lmd_cli.data.nuscenes.files import PCD, data_file, file_error, read_bytes, told_kind
from lmd_cli.data.nuscenes.frames import Matrix, move
from lmd_cli.data.nuscenes.pcd import NotPcdError, Table, read_pcd
from lmd_cli.data.nuscenes.points import require_points
from lmd_cli.data.nuscenes.sweeps import accumulate

#: The fields of a radar point, in the file's order.
FIELDS = (
    *("x", "y", "z", "dyn_prop", "id", "rcs", "vx", "vy", "vx_comp", "vy_comp"),
    *("is_quality_valid", "ambig_state", "x_rms", "y_rms", "invalid_state", "pdh0"),
    *("vx_rms", "vy_rms"),
)
#: Names of nuScenes' fields to what stands for them: a field of the file, or a number.
RadarFields = Mapping[str, str | float]


@dataclass(frozen=True)
class RadarFilters:
    """States of radar points to keep; ``None`` keeps every state, as SimpleBEV does."""

    invalid_states: Collection[int] | None = None
    dynprop_states: Collection[int] | None = None
    ambig_states: Collection[int] | None = None


#: nuscenes-devkit's default.
DEVKIT_FILTERS = RadarFilters((0,), range(7), (3,))


def read_radar(
    path: Path | str,
    filters: RadarFilters | None = None,
    *,
    token: str | None = None,
    fields: RadarFields | None = None,
) -> NDArray[np.float64]:
    """Points of a radar ``.pcd`` file, (18, n) in the order of :data:`FIELDS`, sensor frame.

    The same values as nuscenes-devkit's ``RadarPointCloud.from_file``, without a loop over points
    and without its filters, which are globals there. A first point without a position means no
    points.

    Args:
        path: the file.
        filters: states to keep; all by default.
        token: the sample that needs the file, for the error message.
        fields: what stands for nuScenes' fields in files of another radar.

    Raises:
        DataError: the file is missing, truncated or not a radar file, or a point is no measurement.
    """
    path = Path(path)
    content = read_bytes(path, token)
    try:
        points = _columns(read_pcd(content), fields)  # (18, n)
    except NotPcdError as error:
        raise file_error(path, told_kind(content, PCD) or str(error), token) from error
    if points.shape[1] and np.isnan(points[:3, 0]).all():
        return points[:, :0]
    require_points(path, FIELDS, points, token)
    return points[:, _kept(points, filters or RadarFilters())]


def _columns(table: Table, fields: RadarFields | None) -> NDArray[np.float64]:
    """nuScenes' fields (18, n) of a file's; 0 for those that it lacks, if any are named."""
    there = [name for name in table.dtype.names or () if not table.dtype[name].shape]
    sources = {name: (fields or {}).get(name, name) for name in FIELDS}
    required = FIELDS if fields is None else {*fields, *FIELDS[:3]}
    lacking = [s for n, s in sources.items() if n in required and _absent(s, there)]
    if lacking:
        raise NotPcdError(
            f"it has no field {', '.join(map(str, lacking))}; it has {', '.join(there)}. "
            "data.radar_fields says what stands for nuScenes' fields, such as {vx: vrel_x}"
        )
    points = np.zeros((len(FIELDS), len(table)))
    for row, source in zip(points, sources.values(), strict=True):
        if not _absent(source, there):
            row[:] = table[source] if isinstance(source, str) else source
    return points


def _absent(source: str | float, there: Collection[str]) -> bool:
    return isinstance(source, str) and source not in there


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
    root: Path,
    record: SampleRecord,
    filters: RadarFilters | None = None,
    fields: RadarFields | None = None,
) -> NDArray[np.float64]:
    """Sweeps of the radars, (19, n): :data:`FIELDS`, then the time lag in seconds.

    Positions are in the ego frame at the time of the reference radar, metres; channels in the
    order of the rig, each from the newest sweep to the oldest. Velocities stay in the frame of
    their own sensor, as SimpleBEV leaves them.

    Raises:
        DataError: a file is missing or damaged; names it and the sample.
    """
    token = record.token
    sweeps = [sweep for frames in record.radars.values() for sweep in frames]
    clouds = [
        read_radar(data_file(root, s.filename, token), filters, token=token, fields=fields)
        for s in sweeps
    ]
    return accumulate(clouds, sweeps, record.reference_radar)


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
