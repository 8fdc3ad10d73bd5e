"""Weights from files, strictly: every key and shape must fit, and only tensors are read."""

from __future__ import annotations

import hashlib
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lmd_cli.errors import CheckpointError

#: Where a published checkpoint keeps the weights, beside the optimiser's state.
STATE_KEY = "model_state_dict"
#: Where Lightning keeps them, with every name behind this prefix.
LIGHTNING_KEY, LIGHTNING_PREFIX = "state_dict", "model."
#: What can be loaded, for error messages.
EXPECTED = f"tensors by name, or a dict with {STATE_KEY!r} or {LIGHTNING_KEY!r}"
#: How many keys of each kind an error names.
NAMED = 5


def load_checkpoint(path: Path | str, module: nn.Module) -> str:
    """Load the weights in ``path`` into ``module``, all of them or none.

    Args:
        path: ``.safetensors``, or a PyTorch file that holds a state dict, by itself or under
            ``model_state_dict`` as published SimpleBEV checkpoints (``model-*.pth``) do, or under
            ``state_dict`` with names behind ``model.``, as Lightning does.
        module: changed in place, and only if everything fits. It may have a method
            ``explain_mismatch(state)`` that says, or returns ``None``, what a state dict that does
            not fit is: "these are weights of a ResNet-18, the config says 50".

    Returns:
        the file's SHA-256, hexadecimal.

    Raises:
        CheckpointError: the file is missing, damaged, holds something other than tensors, or
            belongs to another architecture.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise CheckpointError(
            f"checkpoint {path} {what}: give a .safetensors or .pth file, or 'random'"
        )
    state = read_state(path)
    explain = getattr(module, "explain_mismatch", None)
    check_fits(state, module.state_dict(), path, explain)
    module.load_state_dict(state, strict=True)
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU.

    Raises:
        CheckpointError: see :func:`load_checkpoint`.
    """
    try:
        with warnings.catch_warnings():  # about pickle protocols: the error says what matters
            warnings.simplefilter("ignore")
            if path.suffix == ".safetensors":
                return load_file(path, device="cpu")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(reading_failed(path, error)) from error
    return state_of(content, path)


def reading_failed(path: Path, error: Exception) -> str:
    """What to say when a file could not be read: a refused type, or damage.

    PyTorch's own text recommends to switch the safe loading off, so it is not passed on.
    """
    refused = refused_content(path, error)
    if refused:
        target = shlex.quote(path.with_suffix(".safetensors").name)
        return (
            f"checkpoint {path} was refused: it holds {refused}, and only tensors are loaded, "
            "because anything else could run code. Make a clean copy: "
            f"lmd convert {shlex.quote(str(path))} {target}; or save the weights "
            "alone: torch.save(model.state_dict(), path)"
        )
    known = isinstance(error, SafetensorError | RuntimeError | OSError)
    quotable = known and "weights_only" not in str(error)
    reason = re.split(r"[\n.]", str(error))[0] if quotable else "not a PyTorch file"
    return (
        f"checkpoint {path} ({path.stat().st_size} bytes) cannot be read, it may be truncated or "
        f"in another format: {reason}"
    )


def refused_content(path: Path, error: Exception) -> str | None:
    """What in a file made the safe loader refuse it; ``None`` if it is damaged instead."""
    if not isinstance(error, pickle.UnpicklingError):
        return None
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return named[1]
    # An intact archive, but with instructions that the safe loader does not know.
    return "a pickle that is more than tensors" if zipfile.is_zipfile(path) else None


def find_state(content: Any) -> Any:
    """Where in a file's content the weights should be: below a known key, or all of it."""
    if isinstance(content, Mapping) and STATE_KEY in content:
        return content[STATE_KEY]
    if isinstance(content, Mapping) and isinstance(content.get(LIGHTNING_KEY), Mapping):
        return without_prefix(content[LIGHTNING_KEY])
    return content


def state_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a PyTorch file holds.

    Raises:
        CheckpointError: it holds something else.
    """
    content = find_state(content)
    expected = f"expected {EXPECTED}"
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise CheckpointError(f"checkpoint {path} holds {kind}, not a state dict: {expected}")
    for name, value in content.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            kind = type(value).__name__
            raise CheckpointError(
                f"checkpoint {path}: {name!r} is {kind}, not a dense tensor: {expected}"
            )
    return {str(name): value for name, value in content.items()}


def without_prefix(state: Mapping[Any, Any]) -> dict[Any, Any]:
    """Lightning's state dict without ``model.``, if every name has it."""
    if not all(str(name).startswith(LIGHTNING_PREFIX) for name in state):
        return dict(state)
    return {str(name).removeprefix(LIGHTNING_PREFIX): value for name, value in state.items()}


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
        told = f"{sentence.rstrip('.')}.\n" if sentence else ""
        raise CheckpointError(
            f"{told}checkpoint {path} belongs to another architecture than the configured one "
            f"({len(state)} keys, {len(expected)} expected):\n" + "\n".join(lines)
        )


def describe(kind: str, names: list[str]) -> str:
    """``"2 missing: a, b"``, cut after the first five."""
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    listed = f": {', '.join(names[:NAMED])}{more}" if names else ""
    return f"{len(names)} {kind}{listed}"


def random_weights(module: nn.Module, seed: int = 0) -> None:
    """Give ``module`` seeded random weights whose predictions are not degenerate.

    The values depend on the seed and on the order and shapes of the parameters, and on nothing
    else: the global random state is neither read nor changed. Convolutions keep the variance of
    their input, and BatchNorm gets statistics near 0 and 1, so that a deep network stays in range
    in evaluation mode.

    Args:
        module: changed in place.
        seed: any integer.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(random_value(name, value.shape, generator))
            else:
                value.zero_()


def random_value(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Random value of one entry of a state dict; see :func:`random_weights`."""
    noise = torch.randn(shape, generator=generator)
    if len(shape) >= 2:
        return noise * shape[1:].numel() ** -0.5
    if name.endswith("running_var"):
        return 1 + 0.1 * noise.abs()
    if len(shape) == 1 and name.endswith("weight"):
        return 1 + 0.1 * noise
    return 0.1 * noise
