"""A clean copy of a checkpoint that the safe loader refuses, made without running its code.

Lightning files, as CRN's authors publish them, carry pickled hyper-parameters beside the weights.
Here they are read by :mod:`lmd_cli.networks.pickled`, and only tensors are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from lmd_cli.errors import CheckpointError
from lmd_cli.files import replacing
from lmd_cli.networks.checkpoints import (
    EXPECTED,
    LIGHTNING_KEY,
    NAMED,
    STATE_KEY,
    file_sha256,
    find_state,
    reading_failed,
)
from lmd_cli.networks.pickled import MalformedError, Stored, printable, read_content


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        tensors: how many.
        left_out: names of the types in the file that were not built, sorted.
        skipped: entries beside the weights, and entries among them that are no tensors.
        source_sha256, sha256: of the file read and of the file written.
    """

    tensors: int
    left_out: list[str]
    skipped: list[str]
    source_sha256: str
    sha256: str


def convert(source: Path, output: Path, *, overwrite: bool = False) -> Converted:
    """Copies a checkpoint's weights into a safetensors file, atomically.

    Args:
        source: a PyTorch file: a state dict, or one under ``state_dict`` (Lightning, whose prefix
            ``model.`` is dropped) or ``model_state_dict``.
        output: a new ``.safetensors`` file.
        overwrite: replace it if it exists.

    Raises:
        CheckpointError: the source is missing, damaged or holds no weights; the output exists or
            has another suffix.
        OSError: the output cannot be written; what was there before is still there.
    """
    _check_paths(source, output, overwrite)
    state, left_out, skipped = read_weights(source)
    _write(state, output)
    return Converted(len(state), left_out, skipped, file_sha256(source), file_sha256(output))


def read_weights(path: Path) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The weights in a file; and what was left out: types, and entries.

    Raises:
        CheckpointError: it is not a PyTorch file, damaged, or holds no weights.
    """
    skipped: list[str] = []

    def choose(content: Any) -> dict[str, Stored]:
        chosen, others = _weights(content)
        skipped.extend(others)
        return chosen

    try:
        state, left_out = read_content(path, choose)
    except MalformedError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(reading_failed(path, error)) from error
    if not state:
        entries, types = (", ".join(names[:NAMED]) or "none" for names in (skipped, left_out))
        raise CheckpointError(
            f"checkpoint {path} holds no tensors where weights are looked for (entries there: "
            f"{entries}; types not built: {types}): expected {EXPECTED}"
        )
    return state, left_out, skipped


def _weights(content: Any) -> tuple[dict[str, Stored], list[str]]:
    """The tensors where the weights should be, and the names of all other entries."""
    found = find_state(content)
    entries = found if isinstance(found, Mapping) else {}
    chosen = {name: value for name, value in entries.items() if _is_weight(name, value)}
    others = [str(name) for name in entries if name not in chosen]
    if found is not content:
        known = STATE_KEY if STATE_KEY in content else LIGHTNING_KEY
        others += [str(name) for name in content if name != known]
    return chosen, [printable(name) for name in others]


def _is_weight(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Stored)


def _check_paths(source: Path, output: Path, overwrite: bool) -> None:
    if not source.is_file():
        what = "is a folder, not a file" if source.is_dir() else "does not exist"
        raise CheckpointError(f"checkpoint {source} {what}: give a PyTorch file")
    if source.suffix == ".safetensors":
        raise CheckpointError(f"checkpoint {source} holds tensors only already: use it as it is")
    if output.suffix != ".safetensors":
        raise CheckpointError(f"output {output}: give a name that ends with .safetensors")
    if output.is_dir():
        raise CheckpointError(f"output {output} is a folder: give the name of a file")
    if output.exists() and not overwrite:
        raise CheckpointError(f"output {output} exists: give another name, or --overwrite")
    if not output.resolve().parent.is_dir():
        raise CheckpointError(f"output {output}: its folder does not exist")


def _write(state: dict[str, Tensor], output: Path) -> None:
    """Replaces a file in one step: readers see the old bytes or the new, never a torn file."""
    # In memory first: where the disk is full, safetensors raises an error of its own kind.
    data = save(state, metadata={"format": "pt"})
    with replacing(output, shared=True) as file:
        file.write(data)
