"""Class activation maps of a layer, and of one modality's part of it (appendix E.3).

The map of a layer is ReLU(sum_k alpha_k A_k) (eq. 18) with a weight alpha_k for each channel; the
modality's is the same with its part of the activations in place of A (eq. 20), which is what the
layer of the linearised network holds for that modality alone, without the bias. The weights come
from the original network, for the score sum over R of the output (Seg-Grad-CAM, eq. 21):

- ``gradcam``: the mean gradient of the score by the channel (eq. 19)
- ``gradcam++``: positive gradients, weighted by g^2 / (2 g^2 + g^3 sum A) (Chattopadhay et al.)
- ``scorecam``: no gradient: the score when the features are masked by the channel's normalised
  activation, through a softmax over the channels (Wang et al.)

They stand beside :mod:`.interface`, not behind it: what they split is a layer's map, on the layer's
grid and cut off at zero, and their parts do not sum to the output, which is what every method there
promises and what the perturbation protocol and the scores build on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import decompose
from lmd_cli.errors import ConfigError

Method = Literal["gradcam", "gradcam++", "scorecam"]
METHODS: tuple[Method, ...] = get_args(Method)
Fuse = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class ActivationMaps:
    """Maps of one layer, (h, w) each, not negative.

    Attributes:
        whole: of the layer's activations.
        parts: for each modality, of its part; ``bias``, of what belongs to none. Before the ReLU
            they sum to ``whole``.
        weights: alpha (K,).
        score: sum of the output over the region.
    """

    whole: Tensor
    parts: Mapping[str, Tensor]
    weights: Tensor
    score: float


def activation_maps(
    fuse: Fuse,
    features: Mapping[str, Any],
    network: nn.Module,
    layer: str,
    region: Tensor,
    *,
    method: Method = "gradcam",
    variant: str = "identity-ratio",
) -> ActivationMaps:
    """Maps of a layer for the score over a region.

    The network has no hook and no other gradient when this returns, also after an error.

    Args:
        fuse: features to one output (1, 1, Z, X).
        features: each modality's, (1, C, Z, X), or nested tensors (not for ``scorecam``).
        network: whose module ``layer`` is.
        layer: its qualified name; ``NAME#2`` for the second time that it runs.
        region: bool (Z, X), the output's cells that are explained.
        method: where the weights come from.
        variant: rules of the decomposition.

    Raises:
        ConfigError: no such layer (names near ones), one that ``fuse`` does not run, or runs
            several times and none is chosen, that the output does not depend on, or whose output
            has no channels and two spatial axes.
    """
    require_layer(network, layer.partition("#")[0])
    activation, gradient, score = _activation(fuse, features, network, layer, region)
    weights = {
        "gradcam": lambda: gradient.mean(dim=(1, 2)),
        "gradcam++": lambda: plus_plus(activation, gradient),
        "scorecam": lambda: _score_weights(fuse, features, activation, region),
    }[method]()
    name = layer.partition("#")[0]
    runs = decompose(fuse, features, variant, layers=[name], root=network).layers
    recorded = runs[name if layer == f"{name}#1" else layer]
    parts = {**recorded.parts, "bias": recorded.bias}
    return ActivationMaps(
        weighted(weights, activation),
        {name: weighted(weights, part[0]) for name, part in parts.items()},
        weights,
        score,
    )


def weighted(weights: Tensor, activation: Tensor) -> Tensor:
    """ReLU(sum_k alpha_k A_k), eq. 18: (K,) and (K, h, w) to (h, w)."""
    return torch.einsum("k,khw->hw", weights, activation).clamp(min=0.0)


def plus_plus(activation: Tensor, gradient: Tensor) -> Tensor:
    """Weights of Grad-CAM++ (K,) from activations and gradients (K, h, w)."""
    square = gradient.square()
    below = 2 * square + square * gradient * activation.sum(dim=(1, 2), keepdim=True)
    share = torch.where(below != 0, square / below, torch.zeros_like(below))
    return (share * gradient.clamp(min=0.0)).sum(dim=(1, 2))


def require_layer(network: nn.Module, layer: str) -> None:
    """Refuses a module that the network does not have.

    Raises:
        ConfigError: names the nearest.
    """
    names = [name for name, _ in network.named_modules() if name]
    if layer not in names:
        near = get_close_matches(layer, names, n=3, cutoff=0.4)
        near = near or [name for name in names if layer and layer in name][:3]
        hint = f"; near: {', '.join(near)}" if near else f"; the first: {', '.join(names[:5])}"
        raise ConfigError(f"the network has no layer {layer!r}{hint}")


def _activation(
    fuse: Fuse, features: Mapping[str, Any], network: nn.Module, layer: str, region: Tensor
) -> tuple[Tensor, Tensor, float]:
    """The layer's output (K, h, w), the score's gradient by it, and the score."""
    leaves = pytree.tree_map(lambda value: value.detach().requires_grad_(), dict(features))
    with torch.enable_grad(), _kept(network.get_submodule(layer.partition("#")[0])) as outputs:
        score = _score(fuse(**leaves), region)
        output = _chosen(outputs, layer)
        gradient = _gradient(score, output)
    if gradient is None:
        raise ConfigError(
            f"layer {layer!r} does not influence the output: no gradient comes back to it; choose "
            "one between fusion and output"
        )
    return output.detach()[0], gradient[0], float(score.detach())


def _gradient(score: Tensor, output: Tensor) -> Tensor | None:
    if not (score.requires_grad and output.requires_grad):
        return None
    return torch.autograd.grad(score, output, allow_unused=True)[0]


def _chosen(outputs: Sequence[Any], layer: str) -> Tensor:
    """The output of the run that is meant.

    Raises:
        ConfigError: there is none, there are several, or it is no map.
    """
    name = layer.partition("#")[0]
    if not outputs:
        raise ConfigError(
            f"layer {name!r} did not run after the sensors met; choose one between fusion and "
            "output (lmd decompose lists them in layers.csv)"
        )
    runs = [f"{name}#{k + 1}" for k in range(len(outputs))] if len(outputs) > 1 else [name]
    if layer not in runs:
        raise ConfigError(
            f"layer {name!r} ran {len(outputs)} times after the sensors met; choose one of: "
            f"{', '.join(runs)}"
        )
    output = outputs[runs.index(layer)]
    if not _is_map(output):
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"layer {layer!r} gives {given}; one that gives channels on a single grid, (1, K, h, "
            "w), is needed"
        )
    return output


def _is_map(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[0] == 1


@contextmanager
def _kept(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the module's outputs; those that come after work on copies, as some do in place."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
        outputs.append(output)
        return output.clone() if isinstance(output, Tensor) else None

    handle = module.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def _score(output: Tensor, region: Tensor) -> Tensor:
    return output[0, 0][region].sum()


def _score_weights(
    fuse: Fuse, features: Mapping[str, Any], activation: Tensor, region: Tensor
) -> Tensor:
    """Softmax over the channels of the score with the features masked by each."""
    if not all(_is_map(value) for value in features.values()):
        raise ConfigError(
            "scorecam masks the sensors' features on the map's grid, and this network's features "
            "do not lie there; use gradcam or gradcam++"
        )
    low, high = activation.amin(dim=(1, 2)), activation.amax(dim=(1, 2))
    scores = []
    with torch.no_grad():
        nothing = _score(fuse(**{n: torch.zeros_like(v) for n, v in features.items()}), region)
        for channel, bottom, top in zip(activation, low, high, strict=True):
            mask = (channel - bottom) / (top - bottom).clamp(min=1e-12)  # (h, w) in [0, 1]
            masked = {name: value * _on(mask, value.shape[-2:]) for name, value in features.items()}
            scores.append(_score(fuse(**masked), region) - nothing)
    return torch.softmax(torch.stack(scores), dim=0)


def _on(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map (h, w) on another grid, bilinear."""
    return interpolate(values[None, None], size=tuple(size), mode="bilinear")[0, 0]


def on_grid(values: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (h, w) on the output's cells (Z, X), to be drawn over it."""
    return _on(values, size)
