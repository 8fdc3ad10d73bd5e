"""Decompositions that were saved."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch

from lmd_cli.decomposition import Decomposition
from lmd_cli.decomposition.errors import InputError
from lmd_cli.decomposition.storage import FORMAT, restored
from lmd_cli.networks.checkpoints.archives import read_content
from lmd_cli.networks.checkpoints.stored import printable

EXPECTED = f"expected a file that Decomposition.save wrote ({FORMAT})"


def load(path: str | PathLike[str], device: torch.device | str = "cpu") -> Decomposition:
    """Reads what :meth:`Decomposition.save` wrote; its ``program`` is ``None``.

    Args:
        path: the file, which is read as a checkpoint is: nothing in it is run.
        device: where the tensors go.

    Raises:
        InputError: it is no such file, damaged, or of another version.
        OSError: it cannot be read.
    """
    path, text = Path(path), ""

    def choose(content: Any, left_out: list[str]) -> dict[str, Any]:
        nonlocal text
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path} holds something else; {EXPECTED}")
        text = content["result"]
        return content["tensors"]  # type: ignore[no-any-return]

    try:
        tensors = read_content(path, choose)
    except (InputError, OSError):
        raise
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{path} cannot be read: {printable(error)}; {EXPECTED}") from None
    try:
        return restored(text, {name: t.to(device) for name, t in tensors.items()})
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error!r}); {EXPECTED}") from None
