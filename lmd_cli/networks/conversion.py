"""Tensors out of a checkpoint that the safe loader refuses, without running anything it holds.

Lightning files, as CRN's authors publish them, carry pickled hyper-parameters beside the weights.
Here a restricted unpickler builds tensors and plain containers; every other name in the file
becomes an inert placeholder, which is neither imported nor called.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

from lmd_cli.errors import CheckpointError
from lmd_cli.networks.checkpoints import file_sha256, state_of

#: The only callables that a file may name: they build tensors and plain containers.
ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): torch.Size,
}


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        tensors: how many.
        left_out: names of the types in the file that were not built, sorted.
        source_sha256, sha256: of the file read and of the file written.
    """

    tensors: int
    left_out: list[str]
    source_sha256: str
    sha256: str


class Placeholder:
    """Stands for an object that is not built; takes anything that a pickle does to it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Placeholder:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Ignores an element."""

    def extend(self, values: Any) -> None:
        """Ignores elements."""

    def add(self, value: Any) -> None:
        """Ignores an element."""


def convert(source: Path, output: Path, *, overwrite: bool = False) -> Converted:
    """Copies a checkpoint's weights into a safetensors file, atomically.

    Args:
        source: a PyTorch file: a state dict, or one under ``state_dict`` (Lightning) or
            ``model_state_dict``.
        output: a new ``.safetensors`` file.
        overwrite: replace it if it exists.

    Raises:
        CheckpointError: the source is missing, damaged or holds no weights; the output exists or
            has another suffix.
    """
    _check_paths(source, output, overwrite)
    content, left_out = read_restricted(source)
    state = {name: value.detach().clone() for name, value in state_of(content, source).items()}
    if not state:
        raise CheckpointError(f"checkpoint {source} holds no tensors")
    _write(state, output)
    return Converted(len(state), left_out, file_sha256(source), file_sha256(output))


def read_restricted(path: Path) -> tuple[Any, list[str]]:
    """A file's content with placeholders for all but tensors and containers, and their names.

    Raises:
        CheckpointError: it is not a PyTorch file, or damaged.
    """
    left_out: set[str] = set()

    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in ALLOWED:
                return ALLOWED[module, name]
            left_out.add(f"{module}.{name}")
            return type(name.rpartition(".")[2], (Placeholder,), {})

    def load(file: Any, **options: Any) -> Any:
        return Restricted(file, **options).load()

    restricted = SimpleNamespace(Unpickler=Restricted, load=load, __name__="restricted")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(
                path, map_location="cpu", pickle_module=restricted, weights_only=False
            )
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(
            f"checkpoint {path} ({path.stat().st_size} bytes) cannot be read, it may be truncated "
            "or not a PyTorch file"
        ) from error
    return _without_placeholders(content), sorted(left_out)


def _without_placeholders(content: Any) -> Any:
    """A mapping's plain entries; anything else as it is."""
    if not isinstance(content, Mapping):
        return content
    return {key: value for key, value in content.items() if not isinstance(value, Placeholder)}


def _check_paths(source: Path, output: Path, overwrite: bool) -> None:
    if not source.is_file():
        what = "is a folder, not a file" if source.is_dir() else "does not exist"
        raise CheckpointError(f"checkpoint {source} {what}")
    if output.suffix != ".safetensors":
        raise CheckpointError(f"output {output}: give a name that ends with .safetensors")
    if output.exists() and not overwrite:
        raise CheckpointError(f"output {output} exists: give another name, or --overwrite")
    if not output.resolve().parent.is_dir():
        raise CheckpointError(f"output {output}: its folder does not exist")


def _write(state: dict[str, Tensor], output: Path) -> None:
    handle, name = tempfile.mkstemp(dir=output.resolve().parent, suffix=".safetensors")
    os.close(handle)
    try:
        save_file({key: value.contiguous() for key, value in state.items()}, name)
        os.chmod(name, 0o644)  # safetensors leaves it to its owner alone
        os.replace(name, output)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
