"""Copies the tensors of a checkpoint that the safe loader refuses, without running its code.

Lightning files, as CRN's authors publish them, carry pickled hyper-parameters beside the weights.
Here they are read by :mod:`lmd_cli.networks.checkpoints.archives`, and only tensors are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from lmd_cli.errors import CheckpointError
from lmd_cli.networks.checkpoints.loading import file_sha256, read_state
from lmd_cli.networks.checkpoints.refusals import EXPECTED, listed, refuse_model
from lmd_cli.networks.checkpoints.states import Place, named_means, places, unwrapped
from lmd_cli.networks.checkpoints.stored import printable
from lmd_cli.runtime.files import replacing


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


def convert(source: Path, output: Path, *, overwrite: bool = False, ema: bool = False) -> Converted:
    """Copies a checkpoint's weights into a safetensors file, atomically.

    Args:
        source: a PyTorch file: a state dict, or one under ``state_dict``, ``model_state_dict`` or
            the like; the prefixes that wrappers give all names are dropped.
        output: a new ``.safetensors`` file.
        overwrite: replace it if it exists.
        ema: copy the running means of the weights that the source holds beside them, under the
            names that the weights have: some averages drop the dots.

    Raises:
        CheckpointError: the source is missing, damaged or holds no weights; the output exists or
            has another suffix.
        OSError: the output cannot be written; what was there before is still there.
    """
    _check_paths(source, output, overwrite)
    state, left_out, skipped = read_weights(source, ema=ema)
    _write(state, output)
    return Converted(len(state), left_out, skipped, file_sha256(source), file_sha256(output))


def read_weights(
    path: Path, *, ema: bool = False
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The weights in a file; and what was left out: types, and entries.

    Raises:
        CheckpointError: it is not a PyTorch file, damaged, or holds no weights.
    """
    left_out: list[str] = []
    skipped: list[str] = []

    def choose(content: Any, types: list[str]) -> dict[str, Any]:
        left_out.extend(sorted(types))
        refuse_model(path, content)
        place = _place(content, ema)
        if place is None:
            entries = list(content) if isinstance(content, Mapping) else []
            kind = "EMA weights" if ema else "tensors"
            raise CheckpointError(
                f"checkpoint {path} holds no {kind} where weights are looked for (entries there: "
                f"{listed(entries) or 'none'}; types not built: {listed(left_out) or 'none'}): "
                f"expected {EXPECTED}"
            )
        outer = [key for key in content if key not in place.keys[:1]] if place.keys else []
        skipped.extend(map(printable, [*place.beside, *outer]))
        return dict(place.weights)

    return read_state(path, choose), left_out, skipped


def _place(content: Any, ema: bool) -> Place | None:
    """The likeliest place of the weights, or of their running means; ``None`` if there is none.

    Means have the names of the weights beside them, where there are some.
    """
    likeliest: dict[bool, Place] = {}
    for place in sorted(places(content), key=lambda place: place.rank):
        likeliest.setdefault(place.averaged, place)
    means = named_means(content, likeliest[False]) if ema and False in likeliest else None
    alone = likeliest.get(ema)
    return means or (unwrapped(alone) if alone else None)


def _check_paths(source: Path, output: Path, overwrite: bool) -> None:
    if not source.is_file():
        there = "is a folder, not a file" if source.is_dir() else "is no plain file"
        what = there if source.exists() else "does not exist"
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
