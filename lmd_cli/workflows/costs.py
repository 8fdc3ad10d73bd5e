"""The measurements of tables 3 and 11: calls, FLOPs, memory and time of each method."""

from __future__ import annotations

import torch
from torch import Tensor

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.forward import explained
from lmd_cli.config.schema import RunConfig
from lmd_cli.evaluation.cost import (
    compare,
    method_costs,
    plain_cost,
)
from lmd_cli.report.tables.costs import Measured
from lmd_cli.workflows.ready import encode, start


def mean_of_the_map(output: Tensor) -> Tensor:
    """The target of both tables: the mean logit over the whole map, (B, 1)."""
    return output.flatten(1).mean(1, keepdim=True)


def measure_costs(config: RunConfig) -> Measured:
    """Measures at the split's first sample.

    Raises:
        MethodError: LRP has no rule for an operation; it is named.
        LmdError: what the building of data and network raises.
    """
    device = start(config)
    network = build_network(config, device).network
    dataset = build_dataset(config)
    sample = dataset[0]
    features, constants = encode(network, [sample], device)
    with torch.no_grad():
        what = explained(network, config.model.output, features, constants)
    return Measured(
        tuple(network.modalities),
        plain_cost(what.fuse, what.features),
        method_costs(what.fuse, what.features, mean_of_the_map),
        compare(what.fuse, what.features, mean_of_the_map),
        sample.token,
    )
