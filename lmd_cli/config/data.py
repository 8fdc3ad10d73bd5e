"""The ``data`` section of the YAML: which samples of a nuScenes root, and of which sensors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lmd_cli.config.base import Section, option

#: The fields of a radar point, in the file's order.
RADAR_FIELDS = (
    *("x", "y", "z", "dyn_prop", "id", "rcs", "vx", "vy", "vx_comp", "vy_comp"),
    *("is_quality_valid", "ambig_state", "x_rms", "y_rms", "invalid_state", "pdh0"),
    *("vx_rms", "vy_rms"),
)
#: ``data.dataroot`` for the synthetic root in the user's cache folder, made on first use.
SYNTHETIC = "synthetic"

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, strict=False)]
Numbers = Annotated[tuple[int, ...], Field(strict=False)]
States = Literal["invalid_states", "dynprop_states", "ambig_states"]
CHANNELS = "a list of different channels such as {}"


def channels_option(description: str, example: str) -> Any:
    """Channels of one kind of sensor; none for nuScenes'."""
    return option(
        f"{description}; none for those of nuScenes' that the tables have",
        CHANNELS.format(example),
        None,
    )


class DataConfig(Section):
    """Which samples."""

    dataroot: str = option(
        "nuScenes root: holds samples/, sweeps/ and the version's tables; 'synthetic' for the "
        "demo's, made in the user's cache folder on first use",
        "a folder, or synthetic",
        pattern=r"^[^\x00]+$",
    )
    version: str = option(
        "nuScenes version",
        "a name such as v1.0-trainval, of a folder in data.dataroot",
        pattern=r"^[^/\\\x00]*[^/\\\x00.][^/\\\x00]*$",  # something else than dots
    )
    split: Name | Names = option(
        "split of the version: nuScenes', one of the version's splits.json (nuscenes-devkit's "
        "custom splits), or names of scenes",
        "a name such as val or mini_val, or a list of scenes such as [scene-0103]",
    )
    nsweeps: int = option(
        "sweeps of each radar (and LiDAR), the keyframe's included; 1 needs no sweeps' files",
        "an integer from 1 to 100",
        5,
        ge=1,
        le=100,
    )
    cameras: Names | None = channels_option(
        "cameras to read, the reference camera, whose axes SimpleBEV's maps have, first",
        "[CAM_FRONT, CAM_BACK]",
    )
    radars: Names | None = channels_option("radars to read", "[RADAR_FRONT]")
    lidar: Name | Names | None = channels_option(
        "LiDAR (or LiDARs) to read; boxes are seen from the vehicle as it was at the first one's "
        "key frame, or without one at the reference camera's",
        "[LIDAR_TOP]",
    )
    radar_fields: dict[str, str | float] | None = option(
        "what stands for nuScenes' fields in the .pcd files of another radar: fields of the file, "
        "or numbers; nuScenes' fields that are in neither are then 0",
        "a mapping of nuScenes' fields to names or numbers, such as {vx: vrel_x, dyn_prop: 0}",
        None,
    )
    radar_filters: Literal["devkit"] | dict[States, Numbers] | None = option(
        "states of radar points to keep, by field; 'devkit' for nuscenes-devkit's filters; none "
        "for the network's own (SimpleBEV: every point)",
        "devkit, or a mapping of invalid_states, dynprop_states, ambig_states to lists of integers",
        None,
    )

    @field_validator("cameras", "radars", "lidar", "split")
    @classmethod
    def _different(cls, value: Any) -> Any:
        names = value if isinstance(value, tuple) else ()
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise ValueError(f"{twice} is listed twice")
        return value

    @field_validator("radar_fields")
    @classmethod
    def _known_fields(cls, value: dict[str, str | float] | None) -> dict[str, str | float] | None:
        unknown = next((name for name in value or {} if name not in RADAR_FIELDS), None)
        if unknown is not None:
            raise ValueError(
                f"{unknown} is no field of nuScenes' radars: {', '.join(RADAR_FIELDS)}"
            )
        return value
