"""The randomisation check: whether the parts depend on the network's weights.

After Adebayo et al., "Sanity Checks for Saliency Maps", 2018: weights are randomised layer by
layer from the output, and the maps should stop resembling those of the trained network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lmd_cli.decomposition import (
    Decomposition,
    Variant,
    decompose,
    module_rules,
    plain_modules_of,
    set_module_rules,
    set_plain_modules,
)
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.evaluation.metrics import pcc
from lmd_cli.evaluation.statistics import spearman

#: From a network to what it predicts from features, as ``decompose`` takes it.
FuseOf = Callable[[nn.Module], Callable[..., Tensor]]


@dataclass(frozen=True)
class SanityRow:
    """One line of ``sanity.csv``.

    Attributes:
        step: how many layers are random, counted from the output; 0 is the trained network.
        layer: the last one that was randomised; empty at step 0.
        part: a modality, ``bias`` or ``total``.
        pcc: between the part's map and the trained network's.
        rank: Spearman's correlation of the magnitudes (as Adebayo et al. compare).
    """

    step: int
    layer: str
    part: str
    pcc: float
    rank: float


def layers_from_output(network: nn.Module, result: Decomposition) -> list[str]:
    """The network's modules with parameters of their own that met the features, the last first."""
    named = dict(network.named_modules())
    met = dict.fromkeys(path for path, _ in result.coverage)
    own = [
        name
        for name in met
        if name in named and name and any(True for _ in named[name].parameters(recurse=False))
    ]
    return own[::-1]


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Shuffles each parameter's values, which keeps their distribution (and so the scale of what
    the layer gives)."""
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))


def sanity_rows(
    network: nn.Module,
    fuse_of: FuseOf,
    features: Any,
    variant: str | Variant = "identity-ratio",
    *,
    seed: int = 0,
) -> Iterator[SanityRow]:
    """Randomises a copy of the network cascading from the output, and compares its parts.

    Args:
        network: the trained one; it is left as it is.
        fuse_of: the function of the features that a (copied) network computes.
        features: of one sample, by modality.
        variant: linearisation rules.
        seed: of the shuffles.
    """
    trained = decompose(fuse_of(network), features, variant, root=network)
    wanted = _maps(trained)
    yield from _compared(0, "", wanted, wanted)
    random = copy.deepcopy(network)
    set_module_rules(random, module_rules(network))
    set_plain_modules(random, plain_modules_of(network))
    modules = dict(random.named_modules())
    generator = torch.Generator().manual_seed(seed)
    for step, layer in enumerate(layers_from_output(network, trained), start=1):
        randomise(modules[layer], generator)
        maps = _maps(decompose(fuse_of(random), features, variant, root=random))
        yield from _compared(step, layer, maps, wanted)


def _maps(result: Decomposition) -> dict[str, Tensor]:
    return {**result.parts, BIAS: result.bias, "total": result.total}


def _compared(
    step: int, layer: str, maps: dict[str, Tensor], wanted: dict[str, Tensor]
) -> Iterator[SanityRow]:
    for name, trained in wanted.items():
        a, b = maps[name].cpu(), trained.cpu()
        rank = spearman(a.abs().double().numpy(), b.abs().double().numpy())
        yield SanityRow(step, layer, name, pcc(a, b), rank)


def mean_rows(samples: Sequence[Sequence[SanityRow]]) -> list[SanityRow]:
    """The mean of the same rows of several samples."""
    means = []
    for rows in zip(*samples, strict=True):
        first, n = rows[0], len(rows)
        means.append(
            SanityRow(
                first.step,
                first.layer,
                first.part,
                sum(r.pcc for r in rows) / n,
                sum(r.rank for r in rows) / n,
            )
        )
    return means
