"""What reduced precision does to an evaluation: metrics, conservation, vehicle IoU.

    python scripts/studies/precision.py --samples 8                 # encoders in bf16 and fp16
    python scripts/studies/precision.py --device cuda --samples 40  # and the decomposition in TF32

Each way evaluates the same samples of the same cycle. ``features`` is how far the camera's
features are from float32's at the first sample, as a share of their L2 norm. TF32 is a number
format of NVIDIA's GPUs and is left out elsewhere.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.runtime.compute import resolve_device
from lmd_cli.workflows.evaluate import evaluate
from lmd_cli.workflows.finish import RunSummary
from lmd_cli.workflows.ready import encode


@dataclass(frozen=True)
class Way:
    """A way of computing."""

    name: str
    settings: tuple[str, ...]


def ways(gpu: bool) -> list[Way]:
    """Float32 first; reduced encoders; on a GPU also a reduced decomposition."""
    values = [
        Way("float32", ("compute.precision=float32", "compute.tf32=false")),
        Way("bf16 encoders", ("compute.precision=bf16", "compute.tf32=false")),
        Way("fp16 encoders", ("compute.precision=fp16", "compute.tf32=false")),
    ]
    if gpu:
        values += [
            Way("float32, TF32", ("compute.precision=float32", "compute.tf32=true")),
            Way("bf16 encoders, TF32", ("compute.precision=bf16", "compute.tf32=true")),
        ]
    return values


def camera_features(config: RunConfig) -> list[Tensor]:
    """The camera's features of the first sample."""
    device = resolve_device(config.device)
    built, sample = build_network(config, device), build_dataset(config)[0]
    features, _ = encode(built.network, [sample], device, config.compute.precision)
    return [x.double() for x in pytree.tree_leaves(features[built.network.modalities[0]])]


def distance(values: list[Tensor], reference: list[Tensor]) -> float:
    """L2 norm of the difference over that of what is reference."""
    pairs = list(zip(values, reference, strict=True))
    error = sum(float((a - b).square().sum()) for a, b in pairs)
    return float((error / sum(float(b.square().sum()) for b in reference)) ** 0.5)


def row(name: str, summary: RunSummary, features: float) -> dict[str, Any]:
    """One line of the study: the first variant's cells as the paper prints them."""
    record, table = summary.record, summary.table
    return {
        "": name,
        "features": f"{features:.1e}",
        **{str(column): table.iloc[0][column] for column in table.columns[1:]},
        "vehicle IoU": "" if record["vehicle_iou"] is None else f"{record['vehicle_iou']:.4f}",
        "residual": f"{record['conservation_residual']:.1e}",
        "replay": f"{record['replay_deviation']:.1e}",
    }


def deviation(summary: RunSummary, reference: RunSummary) -> str:
    """Largest change of a mean, absolute for PCC and as a share for MSE."""
    changes: dict[str, float] = {"pcc": 0.0, "mse": 0.0}
    for (_, a), (_, b) in zip(
        summary.metrics.iterrows(), reference.metrics.iterrows(), strict=True
    ):
        changes["pcc"] = max(changes["pcc"], abs(a["pcc_mean"] - b["pcc_mean"]))
        if b["mse_mean"]:
            changes["mse"] = max(changes["mse"], abs(a["mse_mean"] / b["mse_mean"] - 1))
    return f"largest change of a mean: PCC {changes['pcc']:.1e}, MSE {changes['mse']:.1%}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", default="demo.yaml")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    gpu = given.device.startswith("cuda") and torch.cuda.is_available()
    rows, notes = [], []
    first: tuple[RunSummary, list[Tensor]] | None = None
    for way in ways(gpu):
        settings = [f"device={given.device}", "variants=[identity-ratio]", *way.settings]
        config = load_config(given.config, settings)
        features = camera_features(config)
        with tempfile.TemporaryDirectory() as folder:
            summary = evaluate(config, Path(folder), limit=given.samples)
        first = first or (summary, features)
        rows.append(row(way.name, summary, distance(features, first[1])))
        notes.append(f"{way.name}: {deviation(summary, first[0])}")
        print(notes[-1], rows[-1], file=sys.stderr, flush=True)
    show(rows)
    print(f"\n{given.samples} samples of {given.config} on {given.device}.", *notes, sep="\n")


def show(rows: list[dict[str, Any]]) -> None:
    """A Markdown table."""
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for each in rows:
        print("| " + " | ".join(str(each[column]) for column in columns) + " |")


if __name__ == "__main__":
    main()
