"""The function of a sample's features that every method of attribution explains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lmd_cli.contract import FusionNetwork, LinearFusion, fuse_function, tail_output
from lmd_cli.evaluation.walk import Encoding, Fused, fused_parts


@dataclass(frozen=True)
class Explained:
    """``fuse(**features)`` is one output of the network.

    Attributes:
        fuse: from the modalities' features to the output map (B, channels, rows, columns).
        features: of the sample, by modality.
    """

    fuse: Callable[..., Tensor]
    features: Mapping[str, Any]


def explained(
    network: FusionNetwork, output: str, features: Mapping[str, Any], constants: Mapping[str, Any]
) -> Explained:
    """What is explained at a sample.

    Where the modalities meet in a linear layer, it is what stands behind: each modality's features
    are its part of that layer's output, which every method treats as it would the features
    themselves (zero features give a zero part; gradient times features is linear in them).
    """
    if not isinstance(network, LinearFusion):
        return Explained(fuse_function(network, output, constants), features)
    return _behind(network, output, fused_parts(network, features))


def explained_encoding(network: FusionNetwork, output: str, sample: Encoding) -> Explained:
    """The same for a sample of the evaluation's walk."""
    if sample.fused is not None and isinstance(network, LinearFusion):
        return _behind(network, output, sample.fused)
    assert sample.features is not None
    return Explained(fuse_function(network, output, sample.constants), sample.features)


def _behind(network: LinearFusion, output: str, fused: Fused) -> Explained:
    """What stands behind a linear fusion layer, as a function of the modalities' parts."""
    bias = fused.bias

    def fuse(**parts: Tensor) -> Tensor:
        total, *others = parts.values()
        for part in others:
            total = total + part
        return tail_output(network, total if bias is None else total + bias, output)

    return Explained(fuse, fused.parts)
