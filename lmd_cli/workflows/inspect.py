"""``lmd inspect``: every operation of a config's network with its rule, and every gap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.forward import fuse_function
from lmd_cli.config.schema import RunConfig
from lmd_cli.decomposition import Coverage, decompose, explain_coverage
from lmd_cli.decomposition.linearised.program import products_of
from lmd_cli.decomposition.result import kept_program
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.ready import encode, start


def inspect_network(
    config: RunConfig, token: str | None = None, progress: Progress | None = None
) -> Coverage:
    """Runs ``fuse`` once at one sample, and lists every operation with its rule, and every gap.

    Args:
        config: data, network, rules; its first variant.
        token: sample token; the first sample if none.

    Raises:
        LmdError: what the building of data and network raises, or an unknown token.
    """
    network, fuse, features = _at_sample(config, token, progress)
    return explain_coverage(fuse, features, config.variants[0], root=network)


def network_attends(config: RunConfig) -> bool:
    """Whether the config's network has attention behind its features; see :func:`attends`.

    Raises:
        LmdError: what the building of data and network raises, or an operation without a rule.
    """
    network, fuse, features = _at_sample(config, None, None)
    return attends(fuse, features, network)


def attends(
    fuse: Callable[..., Any], features: Mapping[str, Any], root: nn.Module | None = None
) -> bool:
    """Whether a function has attention: a softmax of features, and a product of features.

    Seen from the operations that run, not from what the network is called. A softmax alone (over
    classes) is none, nor is a gate alone.
    """
    result = decompose(fuse, features, root=root, keep_maps=True)
    program = kept_program(result)
    softmax = any(step.kind == "softmax" for step in program.steps)
    return softmax and bool(products_of(program))


def _at_sample(
    config: RunConfig, token: str | None, progress: Progress | None
) -> tuple[nn.Module, Callable[..., Any], dict[str, Any]]:
    """The network, its output as a function of the features, and a sample's features."""
    device = start(config)
    network = build_network(config, device).network
    dataset = build_dataset(config, progress)
    sample = dataset[0 if token is None else dataset.index_of(token)]
    features, constants = encode(network, [sample], device)
    return network, fuse_function(network, config.model.output, constants), features
