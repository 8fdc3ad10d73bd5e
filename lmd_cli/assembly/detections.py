"""Boxes of any network that has ``decode``, asked for in one way and checked where they arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lmd_cli.assembly.finite import bad_weights
from lmd_cli.assembly.forward import takes_outputs
from lmd_cli.assembly.targets import user_code
from lmd_cli.decomposition.inputs import not_finite
from lmd_cli.errors import CheckpointError, ContractError, LmdError
from lmd_cli.networks.detections import BOX_COLUMNS, Detections, Place

KEYS = ("boxes", "scores", "names")
#: Beside them, where each box is decided; without it no sensor's part of a box is known.
PLACES = "places"


def require_decode(network: Any) -> None:
    """Refuses a network without boxes.

    Raises:
        ContractError: no ``decode``; says what to add.
    """
    if callable(getattr(network, "decode", None)):
        return
    kind = type(network).__name__
    raise ContractError(
        f"{kind} has no decode(outputs): add a method that takes the dict that fuse gives and "
        f"returns, for each sample of the batch, a dict of {', '.join(KEYS)}: (n, 9) with "
        f"{', '.join(BOX_COLUMNS)} in the ego frame, (n,), and n class names (see "
        "docs/extending.md)"
    )


def detections(
    network: Any, features: Mapping[str, Any], constants: Mapping[str, Any], sample: str
) -> Detections:
    """The boxes of one sample.

    Args:
        network: has ``decode``; where it has ``detection_outputs``, only those are computed.
        features, constants: of the sample, see :func:`lmd_cli.assembly.forward.encode_batch`.
        sample: its token, for messages.

    Raises:
        ContractError: ``fuse`` or ``decode`` raises, or gives something else, or numbers that are
            not finite.
        CheckpointError: they are not finite because weights are not.
    """
    kind = type(network).__name__
    asked = getattr(network, "detection_outputs", None)
    named = {"outputs": list(asked)} if asked is not None and takes_outputs(network.fuse) else {}
    with torch.no_grad():
        with user_code(f"{kind}.fuse at sample {sample}"):
            outputs = network.fuse(features, **named, **constants)
        if not isinstance(outputs, Mapping):
            given = type(outputs).__name__
            raise ContractError(f"{kind}.fuse gave a {given}; expected a dict of tensors by name")
        for name, value in outputs.items():
            _require_finite(value, f"{kind}.fuse: output {name} at sample {sample}", network)
        with user_code(f"{kind}.decode at sample {sample}"):
            decoded = network.decode(outputs)
    where = f"{kind}.decode at sample {sample}"
    made = _only(decoded, outputs, where)
    for name, value in (("boxes", made.boxes), ("scores", made.scores)):
        _require_finite(value, f"{where}: {name}", network)
    if len(made.boxes) and not bool((made.boxes[:, 3:6] > 0).all()):
        raise ContractError(f"{where}: a box has a size that is not above zero")
    return made


def _require_finite(value: Any, where: str, network: Any) -> None:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    if bad := not_finite(value) if floating else "":
        raise _not_finite(bad, where, network)


def _not_finite(bad: str, where: str, network: Any) -> LmdError:
    if weights := bad_weights(network):
        return CheckpointError(f"{weights}, so {where} holds {bad}")
    return ContractError(f"{where} holds {bad} for finite features; expected finite numbers")


def _only(decoded: Any, outputs: Mapping[str, Any], where: str) -> Detections:
    """What ``decode`` gave for a batch of one."""
    if not isinstance(decoded, Sequence) or len(decoded) != 1:
        given = f"{len(decoded)} entries" if isinstance(decoded, Sequence) else "no list"
        raise ContractError(f"{where} gave {given}; expected a list with one entry for each sample")
    one = decoded[0]
    if isinstance(one, Detections):
        return one
    if not isinstance(one, Mapping) or not set(KEYS) <= set(one):
        raise ContractError(f"{where}: expected a dict with {', '.join(KEYS)}")
    boxes, scores, names = (one[key] for key in KEYS)
    _require_shapes(boxes, scores, names, where)
    places = _places(one[PLACES], outputs, len(names), where) if PLACES in one else None
    return Detections(boxes.detach().cpu(), scores.detach().cpu(), tuple(names), places)


def _places(given: Any, outputs: Mapping[str, Any], count: int, where: str) -> tuple[Place, ...]:
    """Each box's cell, given as (output, channel, row, column)."""
    if not isinstance(given, list | tuple) or len(given) != count:
        raise ContractError(f"{where}: places must be a list with one entry for each box")
    places = []
    for one in given:
        try:
            name, *cell = one
            channel, row, column = map(int, cell)
            outputs[name][0, channel, row, column]
        except (TypeError, ValueError, KeyError, IndexError):
            raise ContractError(
                f"{where}: place {one!r} is none; expected (output, channel, row, column) of a "
                f"value of {', '.join(map(str, outputs))}"
            ) from None
        places.append(Place.cell(name, channel, row, column))
    return tuple(places)


def _require_shapes(boxes: Any, scores: Any, names: Any, where: str) -> None:
    count = len(names) if isinstance(names, list | tuple) else -1
    shapes = {"boxes": (boxes, (count, len(BOX_COLUMNS))), "scores": (scores, (count,))}
    if count < 0 or not all(isinstance(name, str) for name in names):
        raise ContractError(f"{where}: names must be a list of strings, one for each box")
    for name, (value, shape) in shapes.items():
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ContractError(
                f"{where}: {name} is {given}; expected a tensor {shape} for {count} names"
            )
