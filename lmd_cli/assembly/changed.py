"""Features of samples that differ from an encoded one in the raw data of one modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.assembly.contract import FusionNetwork
from lmd_cli.assembly.forward import encode_batch, encode_features
from lmd_cli.assembly.targets import user_code
from lmd_cli.config.compute import Precision
from lmd_cli.errors import ContractError


@dataclass(frozen=True)
class _From:
    """A network of which only what depends on one modality is encoded."""

    network: Any
    modality: str

    def encode(self, batch: Mapping[str, Any]) -> Any:
        return self.network.encode_from(batch, self.modality)


def encode_changed(
    network: FusionNetwork,
    batch: Mapping[str, Any],
    modality: str,
    clean: Mapping[str, Any],
    sample: str,
    precision: Precision = "float32",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each modality's features, and what ``fuse`` needs besides; what the change does not reach is
    not encoded again where the network has ``encode_from``.

    Args:
        batch: of B samples.
        modality: whose raw data changed.
        clean: features of the sample as it is, a batch of one.
        sample: its token, for messages.
        precision: of the encoders.

    Raises:
        ContractError: a change of one modality changed the features of another.
    """
    if not hasattr(network, "encode_from"):
        features, constants = encode_batch(network, batch, sample, precision)
        _require_same(features, clean, modality, sample)
        return features, constants
    kind = type(network).__name__
    with torch.no_grad(), user_code(f"{kind}.encode_from at sample {sample}"):
        changed = encode_features(_From(network, modality), batch, precision)
    count = next(len(x) for x in pytree.tree_leaves(changed) if isinstance(x, Tensor))
    features = {n: _repeated(clean[n], count) for n in network.modalities}
    own = getattr(network, "constants", None)
    with torch.no_grad(), user_code(f"{kind}.constants at sample {sample}"):
        return {**features, **changed}, {} if own is None else dict(own(batch))


def _repeated(tree: Any, count: int) -> Any:
    """Features of a batch of one for a batch of ``count``, in no memory of their own."""
    return pytree.tree_map(
        lambda x: x.expand(count, *x.shape[1:]) if isinstance(x, Tensor) else x, tree
    )


def _require_same(
    features: Mapping[str, Any], clean: Mapping[str, Any], modality: str, sample: str
) -> None:
    """Refuses a change that reaches other modalities, from which nothing could be learnt."""
    for name in features:
        pairs = zip(
            pytree.tree_leaves(features[name]), pytree.tree_leaves(clean[name]), strict=True
        )
        same = all(a.shape == b.shape and torch.allclose(a, b, atol=1e-5) for a, b in pairs)
        if name != modality and not same:
            raise ContractError(
                f"sample {sample} with an object taken out of {modality} has other features of "
                f"{name} as well: remove(index, object, modality) must leave the other modalities' "
                "data alone, and an item must be the same each time"
            )
