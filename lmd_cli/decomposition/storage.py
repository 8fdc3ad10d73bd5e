"""Results in files that hold tensors and plain values only, so that reading one runs no code."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import InputError
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.registry import RuleInfo
from lmd_cli.decomposition.result import DecomposedTensor, Decomposition, Parts
from lmd_cli.decomposition.tracing.audit import OperationRecord

FORMAT = "lmd decomposition 1"
_PLAIN = (type(None), bool, int, float, str)


def write(result: Decomposition, path: Path) -> None:
    """Replaces a file in one step; see :meth:`Decomposition.save`."""
    buffer = io.BytesIO()  # torch writes a file's name into it, and no name into a buffer
    torch.save(_state(result), buffer)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(buffer.getvalue())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Decomposition:
    """Reads what :meth:`Decomposition.save` wrote; its ``program`` is ``None``.

    Args:
        path: the file.
        device: where the tensors go.

    Raises:
        InputError: it is no such file, damaged, or of another version.
        OSError: it cannot be read.
    """
    expected = f"expected a file that Decomposition.save wrote ({FORMAT})"
    data = io.BytesIO(Path(path).read_bytes())
    try:
        state = torch.load(data, map_location=device, weights_only=True)
    except pickle.UnpicklingError:  # torch's own advice is to run what the file holds
        raise InputError(f"{path} cannot be read: no plain tensors; {expected}") from None
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read: {reason}; {expected}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path} holds something else; {expected}")
    try:
        return _result(state)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is damaged ({error!r}); {expected}") from None


def _state(result: Decomposition) -> dict[str, Any]:
    layout = result.layout
    return {
        "format": FORMAT,
        "variant": result.variant,
        "modalities": list(layout.modalities),
        "extras": dict(layout.extras),
        "merged": result.merged,
        "output": _packed(result.tree),
        "layers": {name: _packed(layer.tree) for name, layer in result.layers.items()},
        "operations": [asdict(record) for record in result.operations],
        "coverage": [[*place, info.kind, info.equation] for place, info in result.coverage.items()],
    }


def _result(state: Mapping[str, Any]) -> Decomposition:
    layout, merged = Layout(tuple(state["modalities"]), state["extras"]), bool(state["merged"])
    layers = {n: Parts(_unpacked(v), layout, merged) for n, v in state["layers"].items()}
    operations = [OperationRecord(**record) for record in state["operations"]]
    coverage = {(m, f): RuleInfo(kind, eq) for m, f, kind, eq in state["coverage"]}
    tree, variant = _unpacked(state["output"]), str(state["variant"])
    return Decomposition(tree, layout, layers, operations, coverage, None, merged, variant)


def _packed(value: Any) -> dict[str, Any]:
    """A tree as dicts that say of what kind each node was."""
    if isinstance(value, DecomposedTensor):
        stack = {"total": _own(value.total), "parts": _own(value.parts), "rows": list(value.rows)}
        return {"kind": "decomposed", **stack}
    if isinstance(value, Tensor):
        return {"kind": "plain", "value": _own(value)}
    if type(value) in _PLAIN:
        return {"kind": "plain", "value": value}
    if type(value) is dict and all(type(key) in _PLAIN for key in value):
        return {"kind": "dict", "items": {key: _packed(v) for key, v in value.items()}}
    if type(value) in (list, tuple):
        return {"kind": type(value).__name__, "items": [_packed(v) for v in value]}
    raise InputError(
        f"an output with a {type(value).__name__} cannot be saved: only tensors, plain values, "
        "dicts, lists and tuples can"
    )


def _unpacked(node: Mapping[str, Any]) -> Any:
    kind = node["kind"]
    if kind == "decomposed":
        total, parts, rows = node["total"], node["parts"], tuple(node["rows"])
        if parts.shape != (len(rows), *total.shape):
            raise ValueError(f"parts {tuple(parts.shape)} of {len(rows)} rows")
        return DecomposedTensor(total, parts, rows)
    if kind == "plain":
        return node["value"]
    if kind == "dict":
        return {key: _unpacked(v) for key, v in node["items"].items()}
    return {"list": list, "tuple": tuple}[kind](map(_unpacked, node["items"]))


def _own(tensor: Tensor) -> Tensor:
    """Without gradient, and not the whole storage that a view lies in."""
    return tensor.detach().clone()
