"""What a config's network would meet on the way, before it is relied on: ``lmd inspect``."""

from __future__ import annotations

from lmd_cli.build import build_dataset, build_network
from lmd_cli.config import RunConfig
from lmd_cli.contract import fuse_function
from lmd_cli.decomposition import Coverage, explain_coverage
from lmd_cli.progress import Progress
from lmd_cli.single import encode, start


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
    device = start(config)
    network = build_network(config, device).network
    dataset = build_dataset(config, progress)
    sample = dataset[0 if token is None else dataset.index_of(token)]
    features, constants = encode(network, [sample], device)
    fuse = fuse_function(network, config.model.output, constants)
    return explain_coverage(fuse, features, config.variants[0], root=network)
