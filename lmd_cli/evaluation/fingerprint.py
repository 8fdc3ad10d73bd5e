"""A run's fingerprint: what the unchanged network makes of the first samples.

Weights, configuration and package versions are recorded by name; the code of a network of the
user's own, its imports and the data's files are not. All of them show in the network's inputs and
outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.assembly.contract import FusionNetwork
from lmd_cli.assembly.forward import encode_batch, fuse_function
from lmd_cli.config.compute import Precision
from lmd_cli.data import Loaded, Reader, collate, to_device
from lmd_cli.errors import DataError

#: The first samples of the data set that are looked at.
SAMPLES = 2
#: Other processors and versions sum in another order: how far the statistics of an output may
#: be from the recorded ones, of its root mean square.
TOLERANCE = 1e-3


def fingerprint(
    network: FusionNetwork,
    dataset: Any,
    output: str,
    device: torch.device,
    precision: Precision = "float32",
) -> list[dict[str, Any]]:
    """The fingerprint; samples that cannot be read are left out.

    Returns:
        for each sample ``sample`` (its token), ``inputs`` (SHA-256 of its tensors), ``output``
        (SHA-256 of the network's), and ``statistics`` of the output: mean, root mean square, and
        mean of the product with cos(0), cos(1), ...

    Raises:
        LmdError: the network raises, or does not follow the contract.
    """
    read = Reader(dataset, collate)
    entries = []
    for index in range(min(SAMPLES, len(dataset))):
        loaded = read(index)
        if not isinstance(loaded, Loaded):
            continue
        try:
            entries.append(_entry(network, loaded, output, device, precision))
        except DataError:  # tensors that are not finite
            continue
    return entries


def _entry(
    network: FusionNetwork, loaded: Loaded, output: str, device: torch.device, precision: Precision
) -> dict[str, Any]:
    batch = to_device(loaded.batch, device)
    with torch.no_grad():
        features, constants = encode_batch(network, batch, loaded.token, precision)
        total = fuse_function(network, output, constants)(**features).cpu()
    return {
        "sample": loaded.token,
        "inputs": tensors_sha256(loaded.batch),
        "output": tensors_sha256({output: total}),
        "statistics": _statistics(total),
    }


def tensors_sha256(tensors: Mapping[str, Any]) -> str:
    """Hash of nested tensors by name, with their types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        for leaf in pytree.tree_leaves(tensors[name]):
            if not isinstance(leaf, Tensor):
                digest.update(f"{name} {leaf!r}\n".encode())
                continue
            value = leaf.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _statistics(total: Tensor) -> list[float]:
    values = total.double().flatten()
    waves = torch.cos(torch.arange(len(values), dtype=torch.float64))
    means = (values.mean(), values.square().mean().sqrt(), (values * waves).mean())
    return [float(value) for value in means]


def changed(
    there: Sequence[Mapping[str, Any]], here: Sequence[Mapping[str, Any]], *, exact: bool
) -> str:
    """What differs between a recorded fingerprint and one made now.

    Args:
        there, here: see :func:`fingerprint`; samples that are in one of them only do not count.
        exact: the same processor and versions made both, so that every byte must agree; else only
            the statistics are compared.

    Returns:
        one sentence about the first sample that differs; nothing if none does.
    """
    recorded = {entry["sample"]: entry for entry in there}
    for entry in here:
        before = recorded.get(entry["sample"])
        if before is not None and not _alike(before, entry, exact):
            return _difference(before, entry)
    return ""


def _alike(there: Mapping[str, Any], here: Mapping[str, Any], exact: bool) -> bool:
    if all(there[key] == here[key] for key in ("inputs", "output")):
        return True
    if exact:
        return False
    limit = TOLERANCE * max(abs(there["statistics"][1]), abs(here["statistics"][1]))
    pairs = zip(there["statistics"], here["statistics"], strict=True)
    return all(abs(a - b) <= limit for a, b in pairs)


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    if there["inputs"] == here["inputs"]:
        why = "from the same inputs: its code or weights have changed"
    else:
        why = "and so are its inputs: the data, or the code that reads them, have changed"
    which = "the network's output" if there["output"] != here["output"] else "what is read"
    return f"{which} at sample {here['sample']} is another than the recorded one, {why}"
