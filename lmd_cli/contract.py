"""What the rest of the program asks of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

#: Each modality's features: a tensor, or nested dicts and lists of tensors, batch first.
Features = Mapping[str, Any]


class FusionNetwork(Protocol):
    """A network that is cut where its modalities first meet: ``fuse(encode(batch))``.

    Attributes:
        modalities: their names, in order.
    """

    modalities: tuple[str, ...]

    def encode(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Features of each modality alone."""

    def constants(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What ``fuse`` needs besides and that belongs to no modality (calibration, say)."""

    def fuse(
        self, features: Any, outputs: Sequence[str] = ..., **constants: Any
    ) -> dict[str, Tensor]:
        """Features to the outputs that are asked for."""

    def forward_up(self, values: Tensor) -> Tensor:
        """Output maps (..., rows, columns) turned so that rows run forward, columns right."""


@runtime_checkable
class LinearFusion(Protocol):
    """A network whose modalities meet in a linear layer: ``fuse = tail(fusion_layer(features))``.

    The evaluation then keeps each sample's parts behind that layer. Features are one tensor for
    each modality, and there are no constants.
    """

    def fusion_layer(self, features: Mapping[str, Tensor]) -> Tensor:
        """The layer where the modalities meet."""

    def tail(self, fused: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        """Everything after it; only the outputs that are asked for."""


def fuse_function(
    network: FusionNetwork, output: str, constants: Mapping[str, Any]
) -> Callable[..., Tensor]:
    """One output of ``fuse`` as a function of the modalities' features."""

    def fuse(**features: Any) -> Tensor:
        return network.fuse(features, [output], **constants)[output]

    return fuse
