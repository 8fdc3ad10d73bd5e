"""The interface that a network must implement, and the checks of it.

Defaults of its optional parts are here; docs/extending.md explains it to users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from lmd_cli.errors import ContractError

#: Each modality's features: a tensor, or nested dicts and lists of tensors, batch first.
Features = Mapping[str, Any]
REQUIRED = ("modalities", "encode", "fuse")


class FusionNetwork(Protocol):
    """A network that is cut where its modalities first meet: ``fuse(encode(batch))``.

    It may also have

    - ``constants(batch)``: keyword arguments of ``fuse`` that belong to no modality (calibration,
      say); none if it has no such method;
    - a parameter ``outputs`` of ``fuse``: names of the outputs that are asked for, so that others
      need not be computed;
    - ``encode_from(batch, modality)``: those features that depend on one modality's data, where the
      others need not be computed;
    - ``forward_up(maps)``: output maps (..., rows, columns) turned so that rows run forward and
      columns right, for maps that lie on the ground.

    Attributes:
        modalities: their names, in order.
    """

    modalities: tuple[str, ...]

    def encode(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Features of each modality alone."""

    def fuse(self, features: Any, *args: Any, **constants: Any) -> dict[str, Tensor]:
        """Features to outputs by name."""


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


def require_network(network: Any, what: str, modalities: Sequence[str]) -> None:
    """Refuses what does not follow the contract.

    Args:
        network: what a target made.
        what: it, for the message.
        modalities: of the config.

    Raises:
        ContractError: says what is missing or differs.
    """
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ContractError(f"{what} gave a {kind}; expected a torch.nn.Module")
    kind = type(network).__name__
    missing = [name for name in REQUIRED if not hasattr(network, name)]
    missing += [n for n in REQUIRED[1:] if n not in missing and not callable(getattr(network, n))]
    if missing:
        raise ContractError(
            f"{what} gave a {kind} without {' and '.join(missing)}; a network has the attribute "
            "modalities and the methods encode(batch) and fuse(features) (see docs/extending.md)"
        )
    own = tuple(network.modalities)  # type: ignore[arg-type]
    if own != tuple(modalities):
        raise ContractError(
            f"model.modalities is [{', '.join(modalities)}], but {kind}.modalities is "
            f"[{', '.join(map(str, own))}]; they must be the same, in the same order"
        )
