"""What the three rules for softmax do to CRN's parts: size, conservation, metrics, stability.

    python scripts/studies/softmax.py --config demo_crn.yaml --samples 8

Size is the sum of the parts' L2 norms over the total's. Stability: 0.01 is added to every attention
logit, which changes nothing in the network; how far does the camera's part move (PCC with itself)?
The metrics are those of ``lmd evaluate`` with one partner half the split away. ``interaction`` is
its share of the parts' L2 norms, behind the view transform, the fuser and at the output.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.forward import fuse_function
from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.decomposition import Decomposition, decompose
from lmd_cli.decomposition.layout import INTERACTION
from lmd_cli.decomposition.rules import softmax
from lmd_cli.evaluation.metrics import mse, pcc
from lmd_cli.workflows.ready import encode

#: The paper's slope with no guard but the smallest that avoids a division by zero.
UNGUARDED = "secant, no guard"
RULES = ("frozen", "taylor", "secant", UNGUARDED)
SHIFT = 0.01
#: The last operation of a stage, by how its module's name begins.
STAGES = {
    "view transform": "backbone_img.view_aggregation_net",
    "fuser": "fuser",
    "output": "",
}
COLUMNS = ("size", "residual", "PCC R_p/R", "PCC C_p/C", "MSE R_p/R", "MSE C_p/C", "stability")


def measure(
    network: nn.Module, shifted: nn.Module, encoded: Any, other: Any, output: str, rule: str
) -> tuple[dict[str, float], dict[str, float]]:
    """One sample under one rule: :data:`COLUMNS`, and the interaction's share by stage."""
    features, constants = encoded
    extras = {name: [other[0][name]] for name in features}
    options: dict[str, Any] = {"bilinear": "interaction", "extras": extras}
    split = _decompose(network, features, constants, output, rule, audit=True, **options)
    moved = _decompose(shifted, features, constants, output, rule)
    own = {**split.parts, "bias": split.bias, INTERACTION: split.interaction}
    values = {
        "size": sum(_norm(part) for part in own.values()) / _norm(split.total),
        "residual": max(record.parts_residual for record in split.operations),
        "stability": pcc(split.parts["camera"], moved.parts["camera"]),
    }
    for letter, name in (("R", "radar"), ("C", "camera")):
        part, replaced = split.parts[name], split.extras[name][0]
        values[f"PCC {letter}_p/{letter}"] = pcc(replaced, part)
        values[f"MSE {letter}_p/{letter}"] = mse(replaced, part)
    return values, _interaction(split)


def _decompose(
    network: Any, features: Any, constants: Any, output: str, rule: str, **options: Any
) -> Decomposition:
    fuse = fuse_function(network, output, constants)
    guard = 1e-12 if rule == UNGUARDED else softmax.SOFTMAX_GUARD
    variant = f"identity-ratio-{rule.partition(',')[0]}"
    with mock.patch.object(softmax, "SOFTMAX_GUARD", guard):
        return decompose(fuse, features, variant, root=network, **options)


def _norm(part: Tensor) -> float:
    return float(torch.linalg.vector_norm(part.double()))


def _interaction(split: Decomposition) -> dict[str, float]:
    shares = {}
    for stage, prefix in STAGES.items():
        inside = [r for r in split.operations if r.module.startswith(prefix)]
        shares[stage] = inside[-1].shares.get(INTERACTION, 0.0)
    return shares


def shift_logits(network: nn.Module) -> nn.Module:
    """A copy whose attention logits are all larger by :data:`SHIFT`: the same network."""
    moved = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name.endswith("attention_weights.bias"):
                parameter.add_(SHIFT)
    return moved


def study(config: RunConfig, samples: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Means over the samples, by rule."""
    device = torch.device("cpu")
    network, data = build_network(config, device).network, build_dataset(config)
    shifted, half = shift_logits(network), len(data) // 2
    measured: dict[str, list[Mapping[str, float]]] = {rule: [] for rule in RULES}
    shares: dict[str, list[Mapping[str, float]]] = {rule: [] for rule in RULES}
    for index in np.linspace(0, len(data) - 1, samples).astype(int).tolist():
        encoded = encode(network, [data[index]], device)
        other = encode(network, [data[(index + half) % len(data)]], device)
        for rule in RULES:
            values, interaction = measure(
                network, shifted, encoded, other, config.model.output, rule
            )
            measured[rule].append(values)
            shares[rule].append(interaction)
    return {r: _means(rows) for r, rows in measured.items()}, {
        r: _means(rows) for r, rows in shares.items()
    }


def _means(rows: list[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def main(argv: list[str] | None = None) -> int:
    """Prints two tables in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="demo_crn.yaml")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    means, shares = study(load_config(arguments.config), arguments.samples)
    for columns, rows in ((COLUMNS, means), (tuple(STAGES), shares)):
        print(f"\n| softmax | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
        for rule, values in rows.items():
            print(f"| {rule} | {' | '.join(f'{values[c]:.3g}' for c in columns)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
