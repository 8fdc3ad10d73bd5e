"""A result as JSON and tensors, so that reading it back runs no code."""

from __future__ import annotations

import io
import json
import os
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
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_described(result, tensors))
    torch.save({"format": FORMAT, "result": text, "tensors": tensors}, buffer)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(buffer.getvalue())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def restored(text: str, tensors: Mapping[str, Tensor]) -> Decomposition:
    """The result that was written as ``text`` and ``tensors``; its ``program`` is ``None``.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError: they are none.
    """
    state = json.loads(text)
    layout, merged = Layout(tuple(state["modalities"]), state["extras"]), bool(state["merged"])
    layers = {n: Parts(_unpacked(v, tensors), layout, merged) for n, v in state["layers"].items()}
    operations = [OperationRecord(**record) for record in state["operations"]]
    coverage = {(m, f): RuleInfo(kind, eq) for m, f, kind, eq in state["coverage"]}
    tree, variant = _unpacked(state["output"], tensors), str(state["variant"])
    return Decomposition(tree, layout, layers, operations, coverage, None, merged, variant)


def _described(result: Decomposition, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """All but its tensors, which are added to ``tensors``."""
    layout, layers = result.layout, result.layers
    return {
        "variant": result.variant,
        "modalities": list(layout.modalities),
        "extras": dict(layout.extras),
        "merged": result.merged,
        "output": _packed(result.tree, tensors),
        "layers": {name: _packed(layer.tree, tensors) for name, layer in layers.items()},
        "operations": [asdict(record) for record in result.operations],
        "coverage": [[*place, info.kind, info.equation] for place, info in result.coverage.items()],
    }


def _packed(value: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """A tree as dicts that say of what kind each node was."""

    def kept(tensor: Tensor) -> str:
        name = str(len(tensors))
        tensors[name] = tensor.detach().clone()  # not the whole storage that a view lies in
        return name

    if isinstance(value, DecomposedTensor):
        stack = {"total": kept(value.total), "parts": kept(value.parts), "rows": list(value.rows)}
        return {"kind": "decomposed", **stack}
    if isinstance(value, Tensor):
        return {"kind": "tensor", "value": kept(value)}
    if type(value) in _PLAIN:
        return {"kind": "plain", "value": value}
    if type(value) is dict and all(type(key) in _PLAIN for key in value):
        items = [[key, _packed(v, tensors)] for key, v in value.items()]
        return {"kind": "dict", "items": items}
    if type(value) in (list, tuple):
        return {"kind": type(value).__name__, "items": [_packed(v, tensors) for v in value]}
    raise InputError(
        f"an output with a {type(value).__name__} cannot be saved: only tensors, plain values, "
        "dicts, lists and tuples can"
    )


def _unpacked(node: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    kind = node["kind"]
    if kind == "decomposed":
        total, parts, rows = tensors[node["total"]], tensors[node["parts"]], tuple(node["rows"])
        if parts.shape != (len(rows), *total.shape):
            raise ValueError(f"parts {tuple(parts.shape)} of {len(rows)} rows")
        return DecomposedTensor(total, parts, rows)
    if kind == "tensor":
        return tensors[node["value"]]
    if kind == "plain":
        return node["value"]
    if kind == "dict":
        return {key: _unpacked(v, tensors) for key, v in node["items"]}
    return {"list": list, "tuple": tuple}[kind](_unpacked(v, tensors) for v in node["items"])
