"""Radar files of nuScenes: points by field, filtered by their states."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmd_cli.config.data import RADAR_FIELDS
from lmd_cli.data.nuscenes.files import PCD, file_error, read_bytes, wrong_format
from lmd_cli.data.nuscenes.pcd import NotPcdError, Table, read_pcd
from lmd_cli.data.nuscenes.points import require_few_zeros, require_points

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


@np.errstate(invalid="ignore")  # what is no number is refused, once all are there
def read_radar(
    path: Path | str,
    filters: RadarFilters | None = None,
    *,
    token: str | None = None,
    fields: RadarFields | None = None,
) -> NDArray[np.float64]:
    """Points of a radar ``.pcd`` file, (18, n) in the order of :data:`RADAR_FIELDS`, sensor frame.

    The same values as nuscenes-devkit's ``RadarPointCloud.from_file``, without a loop over points
    and without its filters, which are globals there. A first point without a position, or a
    single one that lacks a coordinate, means no points.

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
        raise file_error(path, wrong_format(content, PCD) or str(error), token) from error
    missing = np.isnan(points[:3, :1])
    if points.size and (missing.all() or (points.shape[1] == 1 and missing.any())):
        return points[:, :0]
    require_points(path, RADAR_FIELDS, points, token)
    if fields is None:  # other radars may fill up their lists with zeros
        require_few_zeros(path, points, token)
    return points[:, _kept(points, filters or RadarFilters())]


def _columns(table: Table, fields: RadarFields | None) -> NDArray[np.float64]:
    """nuScenes' fields (18, n) of a file's; 0 for those that it lacks, if any are named."""
    there = [name for name in table.dtype.names or () if not table.dtype[name].shape]
    sources = {name: (fields or {}).get(name, name) for name in RADAR_FIELDS}
    required = RADAR_FIELDS if fields is None else {*fields, *RADAR_FIELDS[:3]}
    lacking = [s for n, s in sources.items() if n in required and _absent(s, there)]
    if lacking:
        raise NotPcdError(
            f"it has no field {', '.join(map(str, lacking))}; it has {', '.join(there)}. "
            "data.radar_fields says what stands for nuScenes' fields, such as {vx: vrel_x}"
        )
    points = np.zeros((len(RADAR_FIELDS), len(table)))
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
            kept &= np.isin(points[RADAR_FIELDS.index(field)], list(states))
    return kept
