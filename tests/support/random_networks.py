"""Random small fusion networks in float64, for property tests.

A recipe is a list of names out of :data:`BLOCKS`; every block takes and returns ``(B, C, H, W)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import variant_names

NAMES = ("camera", "radar", "lidar", "map")
#: Variants beside the paper's.
OF_COALITIONS = ("identity-ratio-shapley", "uniform-identity-reveal", "coalitions")
Forward = Callable[[Tensor, nn.Module], Tensor]


class Block(nn.Module):
    """A module with one inner layer (or none) and a forward given as a function."""

    def __init__(self, forward: Forward, inner: nn.Module | None = None):
        super().__init__()
        self.inner = inner if inner is not None else nn.Identity()
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(x, self.inner)


def pointwise(channels: int, out: int | None = None, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, channels if out is None else out, 1, **options)


def randomised(norm: nn.Module) -> nn.Module:
    """A norm whose statistics and affine parameters are not the trivial ones."""
    with torch.no_grad():
        for name, value in norm.state_dict().items():
            if value.dtype.is_floating_point:
                value.add_(
                    0.3 * torch.rand_like(value) if "var" in name else 0.2 * torch.randn_like(value)
                )
    return norm


def residual_inplace(x: Tensor, inner: nn.Module) -> Tensor:
    out = inner(x)
    out += x
    return F.relu(out, inplace=True)


def chunk_inplace(x: Tensor, inner: nn.Module) -> Tensor:
    h = inner(x)
    left, right = h.chunk(2, dim=1)
    left.mul_(0.5)
    F.relu(right, inplace=True)
    return h


def changed_mask(x: Tensor) -> Tensor:
    mask = x > 0
    mask[:, 0] = True
    mask[:, 1].logical_not_()
    return x * mask


def canvas(x: Tensor, inner: nn.Module) -> Tensor:
    h = inner(x)
    h[:, 0] = x[:, 1] * 2.0
    h[:, 1, 0] = 0.3
    return h


def tokens(x: Tensor, inner: nn.Module) -> Tensor:
    h = x.flatten(2).transpose(1, 2)  # (B, H * W, C)
    return inner(h).transpose(1, 2).unflatten(2, x.shape[2:])


def smaller(x: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    return pool(x) if min(x.shape[2:]) >= 4 else x


def position_code(x: Tensor) -> Tensor:
    steps = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
    return torch.cat([x, steps.expand(x.shape[0], 1, *x.shape[2:])], dim=1)[:, 1:]


def larger(x: Tensor, grow: Callable[[Tensor], Tensor]) -> Tensor:
    return grow(x) if max(x.shape[2:]) <= 6 else x


def apply(function: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return lambda channels: Block(lambda x, _: function(x))


#: Number of channels to a module; all keep the number of channels.
BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "conv": lambda c: nn.Conv2d(c, c, 3, padding=1),
    "conv without bias": lambda c: nn.Conv2d(
        c, c, 3, padding=1, bias=False, padding_mode="reflect"
    ),
    "grouped conv": lambda c: nn.Conv2d(c, c, 3, padding="same", groups=2),
    "strided conv": lambda c: Block(lambda x, m: smaller(x, m), nn.Conv2d(c, c, 3, 2, 1)),
    "transposed conv": lambda c: Block(lambda x, m: larger(x, m), nn.ConvTranspose2d(c, c, 2, 2)),
    "BN": lambda c: randomised(nn.BatchNorm2d(c)),
    "IN": lambda c: nn.InstanceNorm2d(c),
    "affine IN": lambda c: randomised(nn.InstanceNorm2d(c, affine=True)),
    "LN": lambda c: Block(tokens, randomised(nn.LayerNorm(c))),
    "GN": lambda c: randomised(nn.GroupNorm(2, c)),
    "ReLU": lambda c: nn.ReLU(),
    "ReLU in place": lambda c: nn.ReLU(inplace=True),
    "GELU": lambda c: nn.GELU(),
    "SiLU in place": lambda c: nn.SiLU(inplace=True),
    "LeakyReLU": lambda c: nn.LeakyReLU(0.2),
    "PReLU": lambda c: nn.PReLU(c),
    "ELU": lambda c: nn.ELU(),
    "tanh": apply(torch.tanh),
    "sigmoid": lambda c: nn.Sigmoid(),
    "softplus": lambda c: nn.Softplus(),
    "max-pooling": apply(lambda x: smaller(x, nn.MaxPool2d(2))),
    "average pooling": apply(lambda x: smaller(x, nn.AvgPool2d(3, 2, 1))),
    "upsampling": apply(
        lambda x: larger(x, lambda h: F.interpolate(h, scale_factor=2, mode="bilinear"))
    ),
    "padding": apply(lambda x: larger(x, lambda h: F.pad(h, (1, 0, 0, 1), value=0.7))),
    "residual": lambda c: Block(lambda x, m: x + m(x), nn.Conv2d(c, c, 3, padding=1)),
    "residual in place": lambda c: Block(residual_inplace, nn.Conv2d(c, c, 3, padding=1)),
    "concat skip": lambda c: Block(
        lambda x, m: m(torch.cat([x, x.relu()], 1)), pointwise(2 * c, c)
    ),
    "position code": apply(position_code),
    "constant added in place": lambda c: Block(lambda x, m: m(x).add_(0.25), pointwise(c)),
    "mask": apply(lambda x: x * (torch.arange(x.shape[-1]) % 3 > 0).to(x.dtype)),
    "changed mask": apply(changed_mask),
    "where": apply(lambda x: torch.where(x.detach() > 0, x, 0.1 * x - 0.2)),
    "tokens": lambda c: Block(tokens, nn.Linear(c, c)),
    "permuted": apply(lambda x: x.permute(0, 1, 3, 2).contiguous().flip(2)),
    "matmul": apply(lambda x: x @ torch.eye(x.shape[-1], dtype=x.dtype).flip(0)),
    "chunk in place": lambda c: Block(chunk_inplace, pointwise(c)),
    "canvas": lambda c: Block(canvas, pointwise(c)),
    "normalize": apply(lambda x: F.normalize(x, dim=1)),
}


def nested(kind: str, tensors: list[Tensor]) -> Any:
    """Two tensors as a modality's input of this kind."""
    if kind == "tensor":
        return tensors[0]
    return {"near": tensors[0], "far": [tensors[1]]} if kind == "dict" else list(tensors)


class FusionNetwork(nn.Module):
    """A stem for each input tensor, fusion by ``cat`` or a sum, the blocks, and two heads."""

    def __init__(self, modalities: Mapping[str, int], recipe: list[str], fusion: str, head: str):
        super().__init__()
        channels = 4
        self.fusion, self.head = fusion, head
        self.stems = nn.ModuleDict(
            {name: pointwise(3, channels, bias=i % 2 == 0) for i, name in enumerate(modalities)}
        )
        count = sum(modalities.values())
        self.merge = pointwise(count * channels if fusion == "cat" else channels, channels)
        self.blocks = nn.Sequential(*(BLOCKS[name](channels) for name in recipe))
        self.dense = nn.Conv2d(channels, 2, 1)
        self.vector = nn.Linear(channels, 3)

    def forward(self, **inputs: Any) -> Any:
        features = [
            self.stems[name](leaf)
            for name, tree in inputs.items()
            for leaf in pytree.tree_leaves(tree)
        ]
        fused = torch.cat(features, 1) if self.fusion == "cat" else sum(features[1:], features[0])
        x = self.blocks(self.merge(fused))
        if self.head == "tensor":
            return self.dense(x)
        vector = self.vector((x + 0.5).mean((2, 3)))  # not 0 after a norm
        return {"dense": self.dense(x), "vector": [vector]} if self.head == "dict" else [vector, x]


@dataclass
class Case:
    """A network in evaluation mode, inputs, one extra for each modality, a variant, and the blocks
    that the network is made of."""

    network: FusionNetwork
    inputs: dict[str, Any]
    extras: dict[str, list[Any]]
    variant: str
    recipe: list[str]


@st.composite
def cases(draw: st.DrawFn, max_blocks: int = 6, most: int = 4) -> Case:
    """Draws networks, inputs and variants."""
    names = NAMES[: draw(st.integers(1, most))]
    kinds = {name: draw(st.sampled_from(["tensor", "dict", "list"])) for name in names}
    recipe = draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=max_blocks))
    fusion = draw(st.sampled_from(["cat", "sum"]))
    head = draw(st.sampled_from(["tensor", "dict", "list"]))
    variant = draw(st.sampled_from([*variant_names(), *OF_COALITIONS]))
    batch, seed = draw(st.integers(1, 3)), draw(st.integers(0, 1000))
    counts = {name: 1 if kind == "tensor" else 2 for name, kind in kinds.items()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = FusionNetwork(counts, recipe, fusion, head).double().eval()

        def fresh(kind: str) -> Any:
            return nested(kind, [torch.randn(batch, 3, 4, 5).double() for _ in range(2)])

        inputs = {name: fresh(kind) for name, kind in kinds.items()}
        extras = {name: [fresh(kind)] for name, kind in kinds.items()}
    return Case(network, inputs, extras, variant, recipe)


def differentiable(case: Case) -> bool:
    """Whether autograd takes the network at all: it refuses some writes in place."""
    inputs = pytree.tree_map(lambda x: x.clone().requires_grad_(), case.inputs)
    try:
        outputs = pytree.tree_leaves(case.network(**pytree.tree_map(torch.clone, inputs)))
        sum(x.sum() for x in outputs).backward(inputs=pytree.tree_leaves(inputs))
    except RuntimeError:
        return False
    return True
