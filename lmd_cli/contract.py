"""What the rest of the program asks of a network, and what it says if it does not get it.

docs/extending.md is the page for those who bring their own. Everything that is optional there has
its default here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.config.compute import Precision
from lmd_cli.decomposition.inputs import not_finite
from lmd_cli.decomposition.tracing.modes import while_decomposed
from lmd_cli.errors import CheckpointError, ContractError
from lmd_cli.finite import bad_weights, whose
from lmd_cli.runtime.compute import encode_features
from lmd_cli.targets import blamed

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


def encode_batch(
    network: FusionNetwork,
    batch: Mapping[str, Any],
    sample: str,
    precision: Precision = "float32",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each modality's features, and what ``fuse`` needs besides.

    Args:
        batch: as the data set's samples are collated.
        sample: its token, for messages.
        precision: of the encoders; features come out as float32.

    Raises:
        ContractError: features that are not the modalities', not tensors, or not finite real
            floating numbers; the message names the modality and the sample.
        DataError, CheckpointError: features that are not finite because the batch or the weights
            are not.
    """
    kind = type(network).__name__

    def run() -> Any:
        with torch.no_grad(), blamed(f"{kind}.encode at sample {sample}"):
            return encode_features(network, batch, precision)

    features = run()
    _require_modalities(features, network.modalities, kind)
    for name in network.modalities:
        where = f"{kind}.encode: {name} at sample {sample}"
        if bad := _require_features(features[name], where):
            raise whose(network, batch, sample, f"{where} holds {bad}", run)
    ordered = {name: features[name] for name in network.modalities}
    own = getattr(network, "constants", None)
    if own is None:
        return ordered, {}
    with torch.no_grad(), blamed(f"{kind}.constants at sample {sample}"):
        constants = own(batch)
    if not isinstance(constants, Mapping):
        given = type(constants).__name__
        raise ContractError(
            f"{kind}.constants gave a {given}; expected a dict of arguments of fuse"
        )
    return ordered, dict(constants)


def _require_modalities(features: Any, modalities: Iterable[str], kind: str) -> None:
    wanted = ", ".join(modalities)
    if not isinstance(features, Mapping):
        given = type(features).__name__
        raise ContractError(f"{kind}.encode gave a {given}; expected a dict with {wanted}")
    if set(features) != set(modalities):
        given = ", ".join(map(str, features)) or "nothing"
        raise ContractError(f"{kind}.encode gave features of {given}; the modalities are {wanted}")


def _require_features(tree: Any, where: str) -> str:
    """What features hold besides finite numbers, if anything."""
    leaves = pytree.tree_leaves(tree)
    if not leaves:
        raise ContractError(f"{where} has no tensors; expected at least one")
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise ContractError(f"{where} holds a {type(leaf).__name__}; expected tensors")
        if not leaf.is_floating_point():
            raise ContractError(
                f"{where} holds a tensor of {leaf.dtype}; expected real floating numbers (indices "
                "and masks belong to constants)"
            )
    return next(filter(None, map(not_finite, leaves)), "")


def fuse_function(
    network: FusionNetwork, output: str, constants: Mapping[str, Any]
) -> Callable[..., Tensor]:
    """One output of ``fuse`` as a function of the modalities' features.

    Raises (when called):
        ContractError: ``fuse`` raises, or gives no such output, or one that is not a tensor of real
            floating numbers; or, decomposed, one that is not finite.
    """
    asked = {"outputs": [output]} if _takes_outputs(network.fuse) else {}

    def fuse(**features: Any) -> Tensor:
        kind = type(network).__name__
        with blamed(f"{kind}.fuse"):
            found = network.fuse(features, **asked, **constants)
        return _require_output(found, output, f"{kind}.fuse", network)

    return fuse


def tail_output(network: LinearFusion, fused: Tensor, output: str) -> Tensor:
    """One output of ``tail``.

    Raises:
        ContractError: as :func:`fuse_function`'s.
    """
    kind = type(network).__name__
    with blamed(f"{kind}.tail"):
        found = network.tail(fused, [output])
    return _require_output(found, output, f"{kind}.tail", network)


def _takes_outputs(fuse: Callable[..., Any]) -> bool:
    return "outputs" in inspect.signature(fuse).parameters


def _require_output(found: Any, output: str, what: str, network: Any) -> Tensor:
    if not isinstance(found, Mapping):
        given = type(found).__name__
        raise ContractError(f"{what} gave a {given}; expected a dict of tensors by name")
    if output not in found:
        known = [str(name) for name in found]
        near = get_close_matches(output, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        listed = ", ".join(known) or "nothing"
        raise ContractError(f"model.output is {output!r}; {what} gives {listed}{hint}")
    value = found[output]
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        given = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
        raise ContractError(
            f"{what}: output {output} is of {given}; expected a tensor of real floating numbers"
        )
    if bad := while_decomposed(lambda: not_finite(value)):
        if weights := bad_weights(network):
            raise CheckpointError(f"{weights}, so {what}: output {output} holds {bad}")
        raise ContractError(
            f"{what}: output {output} holds {bad} for finite features; expected finite numbers"
        )
    return value


def forward_up(network: FusionNetwork, maps: Tensor) -> Tensor:
    """Maps (..., rows, columns) turned by the network's ``forward_up``; as they are without."""
    turn = getattr(network, "forward_up", None)
    return maps if turn is None else turn(maps)
