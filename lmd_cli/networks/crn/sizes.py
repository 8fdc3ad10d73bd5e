"""How large CRN is: the published R18 and R50 detection networks, which a demo makes smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmd_cli.errors import ConfigError

Depth = Literal[18, 50]
Task = tuple[str, ...]

#: Detection classes of each published task head, in order.
PUBLISHED_TASKS: tuple[Task, ...] = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)
#: Residual blocks in a ResNet's four stages (He et al. 2016, table 1).
RESNET_BLOCKS: dict[int, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
#: Image features are this many pixels apart; radar pillars half of it.
STRIDE = 16


@dataclass(frozen=True)
class CRNShape:
    """Every size of the network; the published R50 by default.

    Attributes:
        image_size: (H, W) of the images, pixels, multiples of 32.
        depth: first depth bin, end of the last, and step, metres.
        extent, cells: the bird's-eye view reaches ``extent`` metres in each direction, and has
            ``cells`` rows and columns (a multiple of 8).
        key_frames: frames that are fused, the current one first.
        backbone: 18 (basic blocks) or 50 (bottlenecks).
        backbone_blocks: residual blocks in its four stages; none for those of its name.
        backbone_width: channels of its first stage.
        image_neck: channels of each of the four branches of the image neck.
        depth_net: channels inside the depth net.
        context: channels C of each sensor's half of the bird's-eye view.
        pillar: channels of the two pillar layers.
        pillar_points, max_pillars: points kept in a pillar, pillars kept in a view.
        radar_slots: rows for the radar points of a view.
        radar_widths, radar_layers: channels of the radar backbone's three stages, and their
            convolutions behind the first.
        radar_neck: channels of each branch of the radar neck.
        embed, layers, heads, points: channels, layers, heads and sampling points of the fuser.
        trunk, trunk_blocks: channels of the head's first stage, residual blocks of its three.
        head_neck: channels of each branch of the head's neck.
        head: channels in front of and inside the task heads.
        tasks: classes of each task head.
    """

    image_size: tuple[int, int] = (256, 704)
    depth: tuple[float, float, float] = (2.0, 58.0, 0.8)
    extent: float = 51.2
    cells: int = 128
    key_frames: int = 4
    backbone: Depth = 50
    backbone_blocks: tuple[int, int, int, int] | None = None
    backbone_width: int = 64
    image_neck: int = 128
    depth_net: int = 256
    context: int = 80
    pillar: tuple[int, int] = (32, 64)
    pillar_points: int = 8
    max_pillars: int = 1024
    radar_slots: int = 1536
    radar_widths: tuple[int, int, int] = (64, 128, 256)
    radar_layers: tuple[int, int, int] = (3, 5, 5)
    radar_neck: int = 128
    embed: int = 128
    layers: int = 6
    heads: int = 4
    points: int = 4
    trunk: int = 160
    trunk_blocks: tuple[int, int, int] = (2, 2, 2)
    head_neck: int = 64
    head: int = 64
    tasks: tuple[Task, ...] = PUBLISHED_TASKS

    def __post_init__(self) -> None:
        """Refuse what cannot be built, naming the key."""
        first, last, step = self.depth
        bins = (last - first) / step if step > 0 else 0.0
        checks = {
            "image_size": (not any(n % 32 for n in self.image_size), "multiples of 32"),
            "depth": (
                first >= 0 and bins >= 1 and abs(bins - round(bins)) < 1e-6,
                "[first, end, step] with a whole number of steps from first to end",
            ),
            "cells": (self.cells % 8 == 0, "a multiple of 8"),
            "pillar": (self.pillar[0] % 2 == 0, "two integers, the first even"),
            "embed": (
                self.embed % 2 == 0 and self.embed % self.heads == 0,
                f"even and a multiple of heads ({self.heads})",
            ),
            "tasks": (self._known_tasks(), "lists of distinct class names, at least one in each"),
        }
        for name, (fits, expected) in checks.items():
            if not fits:
                raise ConfigError(f"CRN's {name} is {getattr(self, name)!r}: expected {expected}")

    def _known_tasks(self) -> bool:
        names = [name for task in self.tasks for name in task]
        return bool(self.tasks) and all(self.tasks) and len(set(names)) == len(names)

    @classmethod
    def published(cls, backbone: Depth) -> CRNShape:
        """The published detection network of that backbone."""
        if backbone == 50:
            return cls()
        return cls(backbone=18, image_neck=64, radar_layers=(2, 3, 3), radar_neck=64, trunk=128)

    @property
    def depth_bins(self) -> int:
        """Number D of depth bins."""
        first, last, step = self.depth
        return round((last - first) / step)

    @property
    def feature_size(self) -> tuple[int, int]:
        """(h, w) of the image features."""
        return self.image_size[0] // STRIDE, self.image_size[1] // STRIDE

    @property
    def voxel(self) -> float:
        """Edge length of a cell of the bird's-eye view, metres."""
        return 2 * self.extent / self.cells

    @property
    def blocks(self) -> tuple[int, int, int, int]:
        """Residual blocks in the image backbone's four stages."""
        return self.backbone_blocks or RESNET_BLOCKS[self.backbone]
