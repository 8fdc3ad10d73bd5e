"""Explains why a file cannot be used as a checkpoint, and what to do about it."""

from __future__ import annotations

import re
import shlex
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lmd_cli.errors import CheckpointError
from lmd_cli.networks.checkpoints.states import places, whole_model
from lmd_cli.networks.checkpoints.stored import MalformedError, printable

#: What can be loaded, for error messages.
EXPECTED = "tensors by name, or a dict with 'model_state_dict', 'state_dict' or 'model'"
#: Endings of files that hold weights.
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
#: How many keys of each kind an error names.
NAMED = 5
#: Types beside tensors that a file may hold: they have no code of anybody's.
HARMLESS = re.compile(
    r"torch\.(\w+Storage|u?int\d+|float\w*|bfloat16|bool|complex\d+|half|double|long|int|Size"
    r"|device|Tensor|nn\.parameter\.\w+|_utils\.\w+|serialization\._get_layout)"
    r"|collections\.\w+|_codecs\.encode|(builtins|__builtin__)\.(set|frozenset|bytearray|complex)"
)
#: How files begin that people have in place of a checkpoint, and what they are.
OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS; get the file itself: git lfs pull",
    b"<!DOCTYPE": "a web page, not the file that it is about",
    b"<html": "a web page, not the file that it is about",
    b"\x1f\x8b": "compressed by gzip; unpack it first: gzip -d",
    b"\x89HDF": "an HDF5 file (Keras, say); its weights have to be saved by PyTorch",
}


def listed(names: Sequence[Any]) -> str:
    """``a, b, and 2 more``: the first five."""
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(printable, names[:NAMED])) + more


def require_file(path: Path) -> None:
    """Refuses what is no file; of a folder, says which files in it may be meant.

    Raises:
        CheckpointError: see above.
    """
    if path.is_file():
        return
    if not path.is_dir():
        what = "is no plain file" if path.exists() else "does not exist"
        raise CheckpointError(
            f"checkpoint {path} {what}: give a .safetensors or .pth file, or 'random'"
        )
    what = f"checkpoint {path} is a folder, not a file"
    if (path / "data.pkl").is_file():
        folder, name = shlex.quote(str(path.resolve().parent)), shlex.quote(path.resolve().name)
        raise CheckpointError(
            f"{what}: it is an unpacked PyTorch file; pack it again without compression: "
            f"(cd {folder} && zip -r -0 {name}.pth {name})"
        )
    inside = sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES)
    there = listed(inside) or "it holds none"
    raise CheckpointError(f"{what}: give a .safetensors or .pth file ({there})")


def reading_failed(path: Path, error: Exception) -> str:
    """What to say when a file could not be read."""
    with path.open("rb") as file:
        start = file.read(100)
    what = f"checkpoint {path} ({path.stat().st_size} bytes) cannot be read"
    if isinstance(error, MalformedError):
        return f"{what}: {error}"
    known = isinstance(error, SafetensorError | OSError | zipfile.BadZipFile)
    reason = printable(error) if known else "not a PyTorch file"
    reason = _other_format(start, path.suffix == ".safetensors") or reason
    return f"{what}, it may be truncated or in another format: {reason}"


def _other_format(start: bytes, safetensors: bool) -> str:
    """What a file is, by its begin, if not what its name says."""
    if safetensors and start.startswith(b"PK\x03\x04"):
        return "an archive like PyTorch's; if it is a PyTorch file, rename it to .pth"
    if not safetensors and start[8:10] == b'{"':
        return "a safetensors file under another name; rename it to .safetensors"
    text = start.lstrip()
    return next((kind for begin, kind in OTHERS.items() if text.startswith(begin)), "")


def refuse_objects(path: Path, content: Any, left_out: list[str]) -> None:
    """Refuses a file that holds more than tensors.

    Args:
        path: the file.
        content: what it holds.
        left_out: names of the types in it that were not built.

    Raises:
        CheckpointError: says how to come by the tensors.
    """
    refuse_model(path, content)
    refused = [name for name in left_out if not HARMLESS.fullmatch(name)]
    if refused:
        target = shlex.quote(path.with_suffix(".safetensors").name)
        copy = f"Make a clean copy: lmd convert {shlex.quote(str(path))} {target}; or save"
        raise CheckpointError(
            f"checkpoint {path} was refused: it holds {refused[0]}, and only tensors are loaded, "
            f"because anything else could run code. {copy if places(content) else 'Save'} "
            "the weights alone: torch.save(model.state_dict(), path)"
        )


def refuse_model(path: Path, content: Any) -> None:
    """Refuses a file that holds a whole model, pickled as an object.

    Raises:
        CheckpointError: says how to save its weights.
    """
    if entry := whole_model(content):
        key, model = entry
        raise CheckpointError(
            f"checkpoint {path} was refused: it holds {model.name}, a whole pickled model, and "
            "only tensors are loaded, because anything else could run code. If you trust the "
            "file, open it where the model's code can be imported, and save the weights alone: "
            f"model = torch.load({str(path)!r}){key}; torch.save(model.state_dict(), 'weights.pth')"
        )
