"""Loads weights strictly: every key, shape and data type must fit, and only tensors are read."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lmd_cli.errors import CheckpointError
from lmd_cli.networks.checkpoints.archives import read_content, require_directory
from lmd_cli.networks.checkpoints.refusals import (
    EXPECTED,
    NAMED,
    listed,
    reading_failed,
    refuse_objects,
    require_file,
)
from lmd_cli.networks.checkpoints.states import (
    COUNTER,
    KNOWN,
    Place,
    Weight,
    best,
    places,
    with_statistics,
)
from lmd_cli.networks.checkpoints.stored import MalformedError, Placeholder, Stored, printable

log = logging.getLogger(__name__)


def load_checkpoint(path: Path | str, module: nn.Module, *, ema: bool = False) -> str:
    """Load the weights in ``path`` into ``module``, all of them or none.

    They may lie in dicts in the file, and their names behind a common prefix (``module.``,
    ``model.``): what is beside them is then left out, and a line says so. BatchNorm's counters
    may be missing. Floating-point numbers of another width are converted.

    Args:
        path: ``.safetensors``, or a PyTorch file.
        module: changed in place, and only if everything fits. It may have a method
            ``explain_mismatch(state)`` that says, or returns ``None``, what a state dict that does
            not fit is: "these are weights of a ResNet-18, the config says 50".
        ema: take the running means of the weights that a file holds beside the weights.

    Returns:
        the file's SHA-256, hexadecimal.

    Raises:
        CheckpointError: the file is missing, damaged, holds something other than tensors, or
            belongs to another architecture; or weights are no finite numbers.
    """
    path = Path(path)
    require_file(path)
    expected = module.state_dict()
    explain = getattr(module, "explain_mismatch", None)

    def choose(content: Any, left_out: list[str]) -> dict[str, Any]:
        refuse_objects(path, content, left_out)
        place = _place(content, expected, ema, path)
        state = {n: _outline(v, n) for n, v in place.weights.items()}
        counters = {n: v for n, v in expected.items() if n.endswith(COUNTER) and n not in state}
        check_fits(counters | state, expected, path, explain)
        _check_numbers(state, expected, path)
        _say(place, len(counters), path)
        return dict(place.weights)

    read = read_state(path, choose)
    state = {name: value.to(expected[name].dtype) for name, value in read.items()}
    _check_finite(state, module, path)
    kept = {name: value for name, value in expected.items() if name not in state}
    module.load_state_dict(kept | state, strict=True)
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_state(path: Path, choose: Callable[[Any, list[str]], dict[str, Any]]) -> dict[str, Tensor]:
    """Tensors from a file, on the CPU.

    Args:
        path: the file.
        choose: see :func:`~lmd_cli.networks.checkpoints.archives.read_content`; the content of a
            safetensors file are its tensors by name.

    Raises:
        CheckpointError: the file is damaged or of another format; and what ``choose`` raises.
    """
    try:
        if path.suffix == ".safetensors":
            require_directory(path)
            return choose(load_file(path, device="cpu"), [])
        return read_content(path, choose)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise CheckpointError(reading_failed(path, error)) from error


def _place(content: Any, expected: Mapping[str, Tensor], ema: bool, path: Path) -> Place:
    """Where the network's weights are.

    Raises:
        CheckpointError: nowhere, or in several places.
    """
    candidates = best(content, expected, averaged=ema)
    if len(candidates) == 1:
        plain = best(content, expected, averaged=False) if ema else []
        return with_statistics(candidates[0], plain)
    if candidates:
        where = "; ".join(map(str, candidates[:NAMED]))
        raise CheckpointError(
            f"checkpoint {path} holds these weights more than once ({where}): save the ones you "
            "mean alone"
        )
    there = places(content)
    if there and ema:
        raise CheckpointError(f"checkpoint {path} holds no EMA weights: leave model.ema out")
    if there:
        raise CheckpointError(
            f"checkpoint {path} holds EMA weights only: say that you mean them, model.ema: true"
        )
    raise CheckpointError(f"checkpoint {path}{_no_state(content)}: expected {EXPECTED}")


def _no_state(content: Any) -> str:
    """What a file holds in place of tensors by name, as a sentence goes on."""
    while isinstance(content, Mapping) and (known := [k for k in KNOWN if k in content]):
        content = content[known[0]]
    if not isinstance(content, Mapping):
        return f" holds {_kind(content)}, not a state dict"
    for name, value in content.items():
        return f": {printable(name)!r} is {_kind(value)}, not a dense tensor"
    return " holds nothing"


def _kind(value: Any) -> str:
    if isinstance(value, Placeholder) and not value.name.startswith("torch._utils."):
        return value.name
    return "Tensor" if isinstance(value, Placeholder | Stored) else type(value).__name__


def _outline(weight: Weight, name: str) -> Tensor:
    """A tensor of the weight's shape and type that takes no memory."""
    if isinstance(weight, Stored):
        if not weight.fits():
            raise MalformedError(f"tensor {printable(name)} reaches beyond its numbers")
        return torch.empty(weight.size, dtype=weight.storage.dtype, device="meta")
    return weight


def _say(place: Place, counters: int, path: Path) -> None:
    """A line about what was done so that the weights fit."""
    notes = []
    if place.prefix:
        beside = (
            f", {len(place.beside)} beside them left out ({listed(place.beside)})"
            if place.beside
            else ""
        )
        notes.append(f"{place} taken{beside}")
    if counters:
        notes.append(f"it lacks {counters} of BatchNorm's counters, which no prediction needs")
    if notes:
        log.warning("checkpoint %s: %s", path, "; ".join(notes))


def check_fits(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    path: Path,
    explain: Callable[[Mapping[str, Tensor]], str | None] | None = None,
) -> None:
    """Refuse a state dict whose keys or shapes are not exactly those expected.

    Args:
        state: from the file.
        expected: the network's own.
        path: for the message.
        explain: what a state dict that does not fit is, in a sentence that the error begins with.

    Raises:
        CheckpointError: counts the missing, unexpected and misshapen keys and names the first
            five of each.
    """
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    problems = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "misshapen": misshapen,
    }
    if any(problems.values()):
        lines = [f"  {describe(kind, names)}" for kind, names in problems.items()]
        sentence = explain(state) if explain else None
        reason = f"{sentence.rstrip('.')}.\n" if sentence else ""
        raise CheckpointError(
            f"{reason}checkpoint {path} belongs to another architecture than the configured one "
            f"({len(state)} keys, {len(expected)} expected):\n" + "\n".join(lines)
        )


def _check_numbers(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Refuses complex, integer and boolean numbers where floating-point ones belong, and the like.

    Raises:
        CheckpointError: names the first five.
    """
    wrong = [
        f"{name} is {_dtype(state[name])} instead of {_dtype(value)}"
        for name, value in expected.items()
        if name in state and _family(state[name]) != _family(value)
    ]
    if wrong:
        raise CheckpointError(
            f"checkpoint {path} holds numbers of another kind than the network's weights: "
            f"{listed(wrong)}"
        )


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _family(value: Tensor) -> str:
    """Floating-point, complex, boolean, or integers."""
    if value.dtype == torch.bool:
        return "boolean"
    return "complex" if value.is_complex() else "real" if value.is_floating_point() else "integer"


def _check_finite(state: Mapping[str, Tensor], module: nn.Module, path: Path) -> None:
    """Refuses weights that are no finite numbers, and variances below 0.

    Buffers may hold infinities (masks).

    Raises:
        CheckpointError: names the first five.
    """
    weights = dict(module.named_parameters())
    wrong = [
        name
        for name, value in state.items()
        if value.isnan().any() or (name in weights and value.isinf().any())
    ]
    if wrong:
        raise CheckpointError(
            f"checkpoint {path} holds weights that are no finite numbers, as of a training that "
            f"diverged: {listed(wrong)}; take an earlier checkpoint"
        )
    negative = [n for n, v in state.items() if n.endswith("running_var") and (v < 0).any()]
    if negative:
        raise CheckpointError(
            f"checkpoint {path} holds variances below 0: {listed(negative)}; the file is damaged"
        )


def describe(kind: str, names: list[str]) -> str:
    """``"2 missing: a, b"``, cut after the first five."""
    return f"{len(names)} {kind}{f': {listed(names)}' if names else ''}"
