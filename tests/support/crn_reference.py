"""Weights and inputs that CRN's goldens were computed with, by formula; see
``tests/goldens/crn/README.md``."""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmd_cli.networks.crn import CRNSizes
from tests.support.reference_inputs import GOLDENS

FOLDER = GOLDENS / "crn"
F = np.float32
#: Names whose values the network computes itself.
KEPT = ("num_batches_tracked", "voxel_size", "voxel_coord", "voxel_num", "frustum", "ref_2d")
#: Gain of a weight by its name, first match; 1.4 otherwise.
GAINS = (
    (r"layer\d+\.\d+\.conv[23]\.weight$", 0.7),
    (r"depth_conv\.\d+\.conv2\.weight$", 0.7),
    (r"(depth_conv|context_conv)\.3\.weight$", 0.35),
    (r"pred_occupancy\.3\.weight$", 5.6),
)
#: Focal length, cx, cy (pixels of 1600 x 900); quaternion (w, x, y, z); metres in the ego frame.
CAMERAS = (
    (
        (1272.598, 826.615, 479.752),
        (0.675727, -0.673627, 0.212140, -0.211228),
        (1.523878, 0.494631, 1.509328),
    ),
    (
        (1266.417, 816.267, 491.507),
        (0.499802, -0.503032, 0.499780, -0.497371),
        (1.700791, 0.015946, 1.510958),
    ),
    (
        (1260.847, 807.968, 495.334),
        (0.206035, -0.202694, 0.682451, -0.671361),
        (1.550848, -0.493405, 1.495748),
    ),
    (
        (1256.741, 792.113, 492.776),
        (0.692419, -0.703162, -0.116483, 0.112033),
        (1.035691, 0.484795, 1.590970),
    ),
    (
        (809.221, 829.220, 481.778),
        (0.503787, -0.497402, -0.494185, 0.504550),
        (0.028326, 0.003451, 1.579103),
    ),
    (
        (1259.514, 807.253, 501.196),
        (0.122810, -0.132401, -0.700431, 0.690496),
        (1.014878, -0.480568, 1.562395),
    ),
)
TINY = CRNSizes(
    image_size=(128, 352),
    depth=(2.0, 50.0, 2.0),
    cells=32,
    backbone=18,
    image_neck=16,
    depth_net=32,
    context=16,
    pillar=(8, 16),
    max_pillars=128,
    radar_slots=256,
    radar_widths=(16, 24, 32),
    radar_layers=(1, 1, 2),
    radar_neck=16,
    embed=32,
    layers=2,
    trunk=32,
    head_neck=16,
    tasks=(("car",), ("truck", "bus")),
)
SHAPES = {"tiny": TINY, "r18": CRNSizes.published(18), "r50": CRNSizes.published(50)}


@dataclass(frozen=True)
class Case:
    """One set of inputs: batch, sweeps, the network's sizes."""

    batch: int
    sweeps: int
    sizes: CRNSizes


CASES = {
    "tiny_s1": Case(1, 1, TINY),
    "tiny_s4": Case(2, 4, TINY),
    "r50": Case(1, 4, SHAPES["r50"]),
}


def rng(name: str) -> np.random.Generator:
    """The generator that belongs to a name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


# -- weights ------------------------------------------------------------------------------------


def reference_value(name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Value of the ``state_dict`` entry ``name``; ``None`` where the network's own is kept."""
    last = name.rsplit(".", 1)[-1]
    if last in KEPT:
        return None
    n = rng(name).standard_normal(shape, dtype=F)
    if last == "running_var":
        return F(1) + F(0.1) * np.abs(n)
    if name.endswith("sampling_offsets.bias"):
        return offset_grid(n.size) + F(0.1) * n
    if last in ("running_mean", "bias"):
        return F(0.1) * n
    if n.ndim == 1:
        return F(1) + F(0.1) * n
    if name.endswith(("row_embed.weight", "col_embed.weight")):
        return F(0.5) * n
    gain = next((gain for pattern, gain in GAINS if re.search(pattern, name)), 1.4)
    return F(gain / math.sqrt(np.prod(shape[1:]))) * n


def offset_grid(size: int, heads: int = 4, points: int = 4) -> NDArray[np.float32]:
    """Head h looks along +x, +y, -x, -y; point p is p + 1 cells away; (head, sensor, point, xy)."""
    directions = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], F)
    steps = np.arange(1, points + 1, dtype=F)
    grid = directions[:, None, None, :] * steps[:, None]
    sensors = size // (heads * points * 2)
    return np.broadcast_to(grid, (heads, sensors, points, 2)).reshape(-1)


def fill_reference(network: nn.Module) -> nn.Module:
    """Gives a network the reference weights, in evaluation mode."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            value = reference_value(name, tuple(tensor.shape))
            if value is not None:
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return network.eval()


def reference_keys(name: str) -> list[tuple[str, tuple[int, ...], str, int]]:
    """Name, shape, type and crc32 of the filled value of every entry, in order."""
    entries = json.loads((FOLDER / f"keys_{name}.json").read_text())
    return [(key, tuple(shape), dtype, crc) for key, shape, dtype, crc in entries]


# -- inputs -------------------------------------------------------------------------------------


def reference_batch(name: str) -> dict[str, Tensor]:
    """The inputs of one of :data:`CASES`, float32."""
    case = CASES[name]
    views = [(b, s, n) for b in range(case.batch) for s in range(case.sweeps) for n in range(6)]
    leading = (case.batch, case.sweeps, 6)

    def stack(make: object) -> Tensor:
        values = np.stack([make(case, b, s, n) for b, s, n in views])  # type: ignore[operator]
        return torch.from_numpy(values.astype(F)).unflatten(0, leading)

    return {
        "imgs": stack(image),
        "sensor2ego_mats": stack(sensor2ego),
        "intrin_mats": stack(intrinsics),
        "ida_mats": stack(image_transform),
        "bda_mat": torch.eye(4).repeat(case.batch, 1, 1),
        "pts_pv": stack(radar),
    }


def image(case: Case, b: int, s: int, n: int) -> NDArray[np.float32]:
    """A pattern of 16 x 16 blocks and half as much noise for each pixel."""
    height, width = case.sizes.image_size
    generator = rng(f"image/{b}/{s}/{n}")
    coarse = generator.standard_normal((3, height // 16, width // 16), dtype=F)
    noise = generator.standard_normal((3, height, width), dtype=F)
    return coarse.repeat(16, axis=1).repeat(16, axis=2) + F(0.5) * noise


def sensor2ego(case: Case, b: int, s: int, n: int) -> NDArray[np.float64]:
    """Sweep s lies 7.5 s metres back and is turned by -0.02 s rad; item b lies 0.1 b m aside."""
    w, x, y, z = np.asarray(CAMERAS[n][1]) / np.linalg.norm(CAMERAS[n][1])
    mounting, motion = np.eye(4), np.eye(4)
    mounting[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    mounting[:3, 3] = CAMERAS[n][2]
    cos, sin = np.cos(-0.02 * s), np.sin(-0.02 * s)
    motion[:2, :2] = [[cos, -sin], [sin, cos]]
    motion[:3, 3] = [-7.5 * s, 0.3 * s + 0.1 * b, 0.01 * s]
    return motion @ mounting


def intrinsics(case: Case, b: int, s: int, n: int) -> NDArray[np.float64]:
    """For the 1600 x 900 image."""
    focal, cx, cy = CAMERAS[n][0]
    matrix = np.diag([focal, focal, 1.0, 1.0])
    matrix[:2, 2] = cx, cy
    return matrix


def image_transform(case: Case, b: int, s: int, n: int) -> NDArray[np.float64]:
    """Scaled to the width, cut at the top."""
    height, width = case.sizes.image_size
    scale = width / 1600
    matrix = np.diag([scale, scale, 1.0, 1.0])
    matrix[1, 3] = -(int(900 * scale) - height)
    return matrix


def radar(case: Case, b: int, s: int, n: int) -> NDArray[np.float32]:
    """Rows (u, depth, 1, rcs, speed); free slots -999.

    The last camera of the last sweep is empty, the first of the second sweep is full, and the
    others' first twenty points lie in one pillar.
    """
    sizes, width = case.sizes, case.sizes.image_size[1]
    first, last, step = sizes.depth
    out = np.full((sizes.radar_slots, 5), -999, F)
    if n == 5 and s == case.sweeps - 1:
        out[0] = [0.1, last - 1, 0.1, 0, 0]
        return out
    generator = rng(f"radar/{b}/{s}/{n}")
    r = generator.random((sizes.radar_slots, 3), dtype=F)
    rcs = generator.standard_normal(sizes.radar_slots, dtype=F)
    full = n == 0 and s == min(1, case.sweeps - 1)
    quarter = sizes.radar_slots // 4
    count = sizes.radar_slots if full else quarter + int(generator.integers(0, quarter))
    u, depth = F(width) * r[:, 0], F(1) + F(last - 1) * (r[:, 1] if full else r[:, 1] * r[:, 1])
    if not full:
        inner = F(0.05) + F(0.9) * r[:20, :2]
        u[:20] = F(width // 2) + F(8.0) * inner[:, 0]
        depth[:20] = F(first + 20 * step / 2) + F(step / 2) * inner[:, 1]
    speed = (F(12) * r[:, 2] * r[:, 2] - F(0.677)) / F(1.976)
    out[:count] = np.stack([u, depth, np.ones_like(u), rcs, speed], axis=1)[:count]
    return out


# -- goldens ------------------------------------------------------------------------------------


class Golden:
    """A golden file: every ``stride``-th element, the shape and the norm of each tensor."""

    def __init__(self, name: str):
        with np.load(FOLDER / f"{name}.npz") as file:
            self.arrays = dict(file)

    def difference(self, name: str, value: Tensor) -> float:
        """Largest difference of the stored elements; the shape must be the stored one, and the
        norm of the whole tensor equal to 1e-5."""
        ours = value.detach().numpy()
        assert ours.shape == tuple(self.arrays[f"{name}@shape"]), name
        stored = self.arrays[name]
        norm = self.arrays[f"{name}@stats"][2]
        assert abs(np.sqrt(np.square(ours, dtype=np.float64).sum()) / norm - 1) < 1e-5, name
        return float(np.abs(ours.ravel()[:: int(self.arrays[f"{name}@stride"])] - stored).max())

    def mask(self, sweep: int) -> NDArray[np.bool_]:
        """The height mask of a sweep, (B, 6, D, h, w)."""
        shape = tuple(self.arrays[f"geom.s{sweep}.valid@shape"])
        bits = np.unpackbits(self.arrays[f"geom.s{sweep}.valid_bits"])
        return bits[: int(np.prod(shape))].reshape(shape).astype(bool)
