"""Runs a network's encoders, fusion and tail, and checks what they return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.assembly.contract import FusionNetwork, LinearFusion
from lmd_cli.assembly.finite import bad_weights, whose
from lmd_cli.assembly.targets import user_code
from lmd_cli.config.compute import Precision
from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.capture import recording
from lmd_cli.decomposition.inputs import not_finite
from lmd_cli.decomposition.tracing.modes import while_decomposed
from lmd_cli.errors import CheckpointError, ContractError
from lmd_cli.runtime.compute import HALF, TYPES


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
        with torch.no_grad(), user_code(f"{kind}.encode at sample {sample}"):
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
    with torch.no_grad(), user_code(f"{kind}.constants at sample {sample}"):
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
    asked = {"outputs": [output]} if takes_outputs(network.fuse) else {}

    def fuse(**features: Any) -> Tensor:
        kind = type(network).__name__
        with user_code(f"{kind}.fuse"):
            outputs = network.fuse(features, **asked, **constants)
        return _require_output(outputs, output, f"{kind}.fuse", network)

    return fuse


def tail_output(network: LinearFusion, fused: Tensor, output: str) -> Tensor:
    """One output of ``tail``.

    Raises:
        ContractError: as :func:`fuse_function`'s.
    """
    kind = type(network).__name__
    with user_code(f"{kind}.tail"):
        outputs = network.tail(fused, [output])
    return _require_output(outputs, output, f"{kind}.tail", network)


def takes_outputs(fuse: Callable[..., Any]) -> bool:
    """Whether ``fuse`` takes the names of the wanted outputs."""
    return "outputs" in inspect.signature(fuse).parameters


def _require_output(outputs: Any, output: str, what: str, network: Any) -> Tensor:
    if not isinstance(outputs, Mapping):
        given = type(outputs).__name__
        raise ContractError(f"{what} gave a {given}; expected a dict of tensors by name")
    if output not in outputs:
        known = [str(name) for name in outputs]
        near = get_close_matches(output, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        listed = ", ".join(known) or "nothing"
        raise ContractError(f"model.output is {output!r}; {what} gives {listed}{hint}")
    value = outputs[output]
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


def encode_features(
    network: Any, batch: Mapping[str, Any], precision: Precision = "float32"
) -> Any:
    """``network.encode(batch)`` in a precision; features come out as float32.

    Autocast picks the operations (convolutions, linear layers, matrix products); weights and
    inputs stay as they are. The networks compute geometry in full precision in any case.
    """
    if precision == "float32":
        return network.encode(batch)
    devices = [x.device.type for x in pytree.tree_leaves(batch) if isinstance(x, Tensor)]
    with torch.autocast(
        devices[0] if devices else "cpu", dtype=TYPES[precision], cache_enabled=False
    ):
        features = network.encode(batch)
    return pytree.tree_map(_widened, features)


def _widened(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in HALF else x


@dataclass(frozen=True)
class Fused:
    """A sample's parts behind a linear fusion layer.

    Attributes:
        total: output of the fusion layer ``(1, C, Z, X)``.
        parts: each modality's part of it, same shape.
        bias: the bias part, same shape, or ``None`` if the layer has no bias.
    """

    total: Tensor
    parts: dict[str, Tensor]
    bias: Tensor | None

    def copy(self) -> Fused:
        """In memory of its own."""
        parts = {name: part.clone() for name, part in self.parts.items()}
        return Fused(self.total.clone(), parts, None if self.bias is None else self.bias.clone())


def fused_parts(network: LinearFusion, features: Mapping[str, Tensor]) -> Fused:
    """The parts behind the fusion layer; it is linear, so one rule set serves all variants."""
    split = decompose(lambda **f: network.fusion_layer(f), features)
    bias = split.bias if split.has_bias else None
    there = bias is not None and (recording(bias) or bool(bias.any()))
    return Fused(split.total, dict(split.parts), bias if there else None)


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
    return behind_fusion_layer(network, output, fused_parts(network, features))


def behind_fusion_layer(network: LinearFusion, output: str, fused: Fused) -> Explained:
    """What stands behind a linear fusion layer, as a function of the modalities' parts."""
    bias = fused.bias

    def fuse(**parts: Tensor) -> Tensor:
        total, *others = parts.values()
        for part in others:
            total = total + part
        return tail_output(network, total if bias is None else total + bias, output)

    return Explained(fuse, fused.parts)
