"""One decomposed sample as files: arrays, layers, picture, and where they come from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from lmd_cli.build import ground_plane
from lmd_cli.decomposition import OperationRecord
from lmd_cli.decomposition.layout import INTERACTION
from lmd_cli.evaluation.results import csv_lines, disk_errors, write_atomically
from lmd_cli.report.figures import Scene, decomposition_png
from lmd_cli.single import SampleDecomposition

LAYER_FIELDS = ("order", "module", "operation", "total_norm", "residual", "parts_residual")


def write_sample(split: SampleDecomposition, folder: Path) -> list[Path]:
    """Writes ``parts.npz``, ``layers.csv``, ``decomposition.png`` and ``decomposition.json``.

    Everything is computed before the first file is replaced.

    Returns:
        the files.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    contents = {
        "parts.npz": parts_npz(split),
        "layers.csv": layers_csv(split.result.operations, list(split.parts)),
        "decomposition.png": decomposition_png(scene_of(split)),
        "decomposition.json": json.dumps(provenance(split), indent=2).encode() + b"\n",
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        write_atomically(folder / name, data)
    return [folder / name for name in contents]


def parts_npz(split: SampleDecomposition) -> bytes:
    """``total``, one array per part and ``ground_truth``, each (Z, X) float32."""
    arrays = {"total": split.total, **split.parts, "ground_truth": split.ground_truth}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: value.numpy() for name, value in arrays.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


def layers_csv(operations: list[OperationRecord], parts: list[str]) -> bytes:
    """One row for each operation: conservation, and each part's share of the L2 norms.

    ``share_interaction`` is there if different modalities were multiplied anywhere, whichever
    part it is reported in.
    """
    multiplied = any(INTERACTION in record.shares for record in operations)
    names = [*parts, INTERACTION] if multiplied and INTERACTION not in parts else parts
    header = (*LAYER_FIELDS, *(f"share_{name}" for name in names))
    rows = [
        (*(getattr(r, name) for name in LAYER_FIELDS), *(r.shares.get(p, 0.0) for p in names))
        for r in operations
    ]
    return csv_lines([header, *rows])


def provenance(split: SampleDecomposition) -> dict[str, Any]:
    """Where the numbers come from, in plain values."""
    return {
        "sample_token": split.sample.token,
        "scene": split.sample.scene,
        "variant": split.variant,
        "checkpoint": split.built.checkpoint,
        "checkpoint_sha256": split.built.sha256,
        "random_weights": split.built.random,
        "residual": split.residual,
        "shares": part_norm_shares(split),
        "config": split.config.model_dump(mode="json"),
    }


def summary(split: SampleDecomposition) -> list[str]:
    """What the command prints: sample, weights, conservation, shares."""
    shares = part_norm_shares(split)
    largest = max(record.residual for record in split.result.operations)
    return [
        f"sample {split.sample.token} of {split.sample.scene}, rules {split.variant}",
        f"weights: {split.built.checkpoint}"
        + ("; the maps mean nothing" if split.built.random else ""),
        f"residual {split.residual:.1e} (total against the sum of the parts; largest at any of "
        f"{len(split.result.operations)} operations: {largest:.1e})",
        "shares of the prediction: "
        + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()),
    ]


def part_norm_shares(split: SampleDecomposition) -> dict[str, float]:
    """Each part's L2 norm over the sum of the norms."""
    norms = {name: float(part.double().norm()) for name, part in split.parts.items()}
    scale = sum(norms.values()) or 1.0
    return {name: norm / scale for name, norm in norms.items()}


def scene_of(split: SampleDecomposition) -> Scene:
    """What the picture shows: the images as the network got them, and the maps."""
    warning = f"{split.built.checkpoint}: the maps mean nothing" if split.built.random else ""
    return Scene(
        images=split.pictures,
        ground_truth=split.ground_truth.numpy(),
        total=split.total.numpy(),
        parts={name: part.numpy() for name, part in split.parts.items()},
        grid=ground_plane(split.config.model),
        title=f"{split.sample.scene}, sample {split.sample.token}, rules {split.variant}",
        warning=warning,
    )
