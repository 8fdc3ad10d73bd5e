"""How the oracle calls every function whose rule is linear: one entry for each name.

A case is a shape of ``x`` and the call, a function of (torch function, x). ``x`` has parts of
both modalities, of their extras and of the bias. Each alias of a name is called the same way,
unless its full name has an entry of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.support.rule_oracle import normal

Case = tuple[tuple[int, ...], Callable[[Any, Tensor], Any]]

CUBE = (2, 3, 4)
MASK = torch.tensor([[True, False, False, True], [False] * 4, [True, True, False, False]])
ROWS = torch.tensor([1, 0, 1])
INDEX = torch.tensor([[0, 2, 1, 0], [1, 1, 0, 2]])  # into dimension 1 of a cube's faces (2, 3)


def on(shape: tuple[int, ...], *args: Any, **kwargs: Any) -> Case:
    """``function(x, *args, **kwargs)``."""
    return shape, lambda function, x: function(x, *args, **kwargs)


def last(shape: tuple[int, ...], *args: Any) -> Case:
    """``function(*args, x)``."""
    return shape, lambda function, x: function(*args, x)


def by(shape: tuple[int, ...], call: Callable[[Any, Tensor], Any]) -> Case:
    """Any other call."""
    return shape, call


def cubes(*calls: tuple[Any, ...], **kwargs: Any) -> list[Case]:
    """Several argument lists for a cube."""
    return [on(CUBE, *args, **kwargs) for args in calls]


STRUCTURE: dict[str, list[Case]] = {
    "view": [*cubes((6, 4), ((2, -1),)), by(CUBE, lambda f, x: f(x.mT.contiguous(), 8, 3))],
    "view_as": cubes((normal(6, 4),)),
    "reshape": [*cubes(((6, 4),), ((-1,),)), by(CUBE, lambda f, x: f(x.mT, (8, 3)))],
    "torch.Tensor.reshape": [*cubes((6, 4), ((2, -1),)), by(CUBE, lambda f, x: f(x.mT, 8, 3))],
    "reshape_as": cubes((normal(6, 4),)),
    "flatten": [*cubes((), (1,), (0, 1)), on(CUBE, start_dim=1)],
    "unflatten": cubes((2, (2, 2)), (-1, (-1, 2))),
    "ravel": cubes(()),
    "permute": cubes(((2, 0, 1),)),
    "torch.Tensor.permute": cubes((2, 0, 1), ((1, 0, -1),)),
    "transpose": [*cubes((0, 2)), on(CUBE, dim0=-1, dim1=1)],
    "t": [on((3, 4)), on((3,))],
    "movedim": cubes((0, -1), ((0, 1), (2, 0))),
    "moveaxis": cubes((0, -1)),
    "swapaxes": cubes((0, 1)),
    "swapdims": cubes((1, 2)),
    "squeeze": [on((2, 1, 3, 1)), on((2, 1, 3, 1), 1), on((2, 1, 3, 1), -1), on((2, 1, 3), (1,))],
    "unsqueeze": cubes((0,), (-1,)),
    "expand": [on((2, 1, 3), 4, 2, 5, 3), on((2, 1, 3), -1, 4, -1), on((3,), (2, 3))],
    "expand_as": [on((2, 1, 3), normal(2, 4, 3))],
    "broadcast_to": [on((2, 1, 3), (5, 2, 4, 3))],
    "repeat": cubes((2, 1, 3), (2, 1, 1, 1)),
    "tile": cubes(((2,),), ((2, 1, 1, 1),)),
    "repeat_interleave": [*cubes((2,), (2, 1)), by(CUBE, lambda f, x: f(x, ROWS + 1, dim=1))],
    "roll": cubes((1,), (2, 1), ((1, -1), (0, 2))),
    "flip": cubes(((0, 2),), ((-1,),)),
    "fliplr": cubes(()),
    "flipud": cubes(()),
    "rot90": cubes((1, (0, 1)), (2, (1, 2))),
    "chunk": cubes((2,), (3, 2), (2, -1)),
    "split": cubes((2, 2), ((1, 2), 1)),
    "split_with_sizes": cubes(((1, 2), 1)),
    "tensor_split": cubes((2, 2), ((1, 2), 1)),
    "hsplit": cubes((3,)),
    "vsplit": cubes((2,)),
    "dsplit": cubes((2,)),
    "unbind": cubes((), (2,)),
    "narrow": cubes((2, 1, 2)),
    "select": cubes((1, 2), (-1, 0)),
    "index_select": cubes((1, ROWS)),
    "gather": [on((2, 3), 1, INDEX), on((2, 3), dim=0, index=INDEX[:, :3].clamp(max=1))],
    "take_along_dim": [on((2, 3), INDEX, 1)],
    "take": cubes((torch.tensor([[0, 23], [5, 5]]),)),
    "diagonal": cubes((), (1, 1, 2)),
    "diag_embed": cubes((), (1,)),
    "tril": cubes((), (-1,)),
    "triu": cubes((), (1,)),
    "adjoint": cubes(()),
    "sum": [*cubes((), (1,), ((0, 2),)), on(CUBE, dim=-1, keepdim=True)],
    "mean": [*cubes((), (1,), ((0, 2), True)), on(CUBE, dim=(-2, -1), keepdim=True)],
    "nansum": cubes((), (1,)),
    "cumsum": cubes((1,)),
    "diff": [*cubes((), (1, 1), (2, 2)), on(CUBE, n=1, dim=0)],
    "pixel_shuffle": [on((2, 8, 2, 3), 2)],
    "pixel_unshuffle": [on((2, 2, 4, 6), 2)],
    "channel_shuffle": [on((2, 6, 2, 2), 3)],
    "positive": cubes(()),
    "neg": cubes(()),
    "negative": cubes(()),
    "torch.Tensor.T.__get__": [on((3, 4))],
    "torch.Tensor.mT.__get__": cubes(()),
    "torch.Tensor.H.__get__": [on((3, 4))],
    "torch.Tensor.mH.__get__": cubes(()),
    "clone": [*cubes(()), on((2, 3, 4, 5), memory_format=torch.channels_last)],
    "contiguous": [
        on((2, 3, 4, 5), memory_format=torch.channels_last),
        by(CUBE, lambda f, x: f(x.mT)),
    ],
    "to": cubes((torch.float64,), (normal(1),), ("cpu",)),
    "double": cubes(()),
    "cpu": cubes(()),
    "type_as": cubes((normal(1),)),
    "type": cubes((torch.float64,)),
    "unfold": cubes((2, 2, 1), (1, 3, 2)),
    "torch.nn.functional.unfold": [on((2, 3, 4, 5), 2), on((2, 3, 4, 5), (2, 3), 1, 1, 2)],
    "fold": [on((2, 8, 6), (3, 4), 2)],
    "__getitem__": [
        *cubes((0,), (-1,), (slice(None, None, 2),), ((Ellipsis, 1),), ((None, 0, slice(1, 3)),)),
        *cubes((ROWS,), ((slice(None), ROWS),), ((ROWS, slice(None), ROWS),), ([0, 1, 0],)),
        *cubes(((slice(None), MASK),), ((0, MASK),), (torch.tensor([True, False]),)),
        *cubes(([True, False],), ((slice(None), [0, 2], [1, 3]),), ((0, 1, 2),), (None,), (True,)),
        by(CUBE, lambda f, x: f(x, x.detach() > 0)),
        by(CUBE, lambda f, x: f(x, x[0, 0, 0].detach().abs().long() * 0 + 1)),
    ],
    **{
        name: [on((2, 3, 4), 0.5, False), on((2, 3, 4), 0.0, True)]
        for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
    },
    "torch.nn.functional.dropout": [on(CUBE, 0.5, False), on(CUBE, training=False, inplace=True)],
    **{
        f"dropout{n}d": [on((2, 3, *(2,) * n), 0.5, False)] for n in (1, 2, 3)
    },
}  # fmt: skip


def written(*calls: tuple[Any, ...]) -> list[Case]:
    """In-place twins, on a copy."""
    return [by((2, 4, 4), lambda f, x, a=a: f(x * 1.0, *a)) for a in calls]


STRUCTURE |= {
    "nanmean": cubes((), (1,), ((0, 2), True)),
    **dict.fromkeys(("deg2rad", "rad2deg"), cubes(())),
    **dict.fromkeys(("deg2rad_", "rad2deg_"), written(())),
    **{key: [on((3,)), on((2, 3))] for key in ("atleast_1d", "atleast_2d", "atleast_3d")},
    "trace": [on((3, 4))],
    "diag": [on((3, 4)), on((3,), 1)],
    "diagflat": [on((2, 3)), on((3,), -1)],
    "sum_to_size": cubes(((1, 4),), (2, 1, 4)),
    "unsafe_chunk": cubes((2,), (3, 2)),
    "unsafe_split": cubes((2, 2)),
    "unsafe_split_with_sizes": cubes(((1, 2), 1)),
    "affine_grid": [on((2, 2, 3), (2, 1, 3, 4), False), on((1, 3, 4), [1, 1, 2, 2, 3], True)],
    "torch.nn.functional.embedding": [by((5, 3), lambda f, x: f(ROWS + 2, x))],
    "embedding": [by((5, 3), lambda f, x: f(x, ROWS))],
    "tril_": written((), (-1,)),
    "triu_": written((), (1,)),
    "cumsum_": written((1,), (-1,)),
    "torch.linalg.diagonal": [by(CUBE, lambda f, x: f(x, offset=1, dim1=1, dim2=2))],
}


def reals(z: Tensor) -> Tensor:
    """Complex results as pairs of real numbers."""
    return torch.view_as_real(z.resolve_conj()) if z.is_complex() else z


def pairs(x: Tensor) -> Tensor:
    """A complex tensor that depends on x."""
    return torch.complex(x, 0.5 * x.flip(-1) - 0.3)


def transforms(shape: tuple[int, ...], *calls: tuple[Any, ...]) -> list[Case]:
    """Fourier transforms of real and of complex tensors."""
    return [by(shape, lambda f, x, a=a: reals(f(x, *a))) for a in calls] + [
        by(shape, lambda f, x, a=a: reals(f(pairs(x), *a))) for a in calls
    ]


def of_reals(shape: tuple[int, ...], *calls: tuple[Any, ...]) -> list[Case]:
    return transforms(shape, *calls)[: len(calls)]


SIGNAL = (2, 24)
WINDOW = torch.hann_window(8, dtype=torch.float64)


def short_time(f: Any, x: Tensor) -> Tensor:
    return reals(f(x, 8, 4, window=WINDOW, return_complex=True))


def short_time_inverse(f: Any, x: Tensor) -> Tensor:
    z = torch.stft(x, 8, 4, window=WINDOW, return_complex=True)
    return f(z * (1.0 + 0.5j), 8, 4, window=WINDOW)


SPECTRAL: dict[str, list[Case]] = {
    **{f"fft_{n}": transforms(CUBE, (), (None, -2, "ortho")) for n in ("fft", "ifft")},
    **{f"fft_{n}": transforms(CUBE, (), (None, (0, 1))) for n in ("fft2", "ifft2")},
    **{f"fft_{n}": transforms(CUBE, (), (None, (0, 2))) for n in ("fftn", "ifftn")},
    **{f"fft_{n}": of_reals(CUBE, (), (6, 1)) for n in ("rfft", "ihfft")},
    **{f"fft_{n}": of_reals(CUBE, (), ((2, 4), (0, 2))) for n in ("rfft2", "rfftn")},
    **{f"fft_{n}": of_reals(CUBE, ()) for n in ("ihfft2", "ihfftn")},
    **{f"fft_{n}": transforms(CUBE, (), (5, 1)) for n in ("irfft", "hfft")},
    **{f"fft_{n}": transforms(CUBE, ()) for n in ("irfft2", "irfftn", "hfft2", "hfftn")},
    **{f"fft_{n}": cubes((), (1,)) for n in ("fftshift", "ifftshift")},
    "stft": [by(SIGNAL, short_time)],
    "istft": [by(SIGNAL, short_time_inverse)],
    **{
        name: [by(CUBE, lambda f, x: reals(f(pairs(x))))]
        for name in (
            *("real", "imag", "view_as_real", "conj", "conj_physical"),
            *("resolve_conj", "resolve_neg", "torch.Tensor.real.__get__"),
            "torch.Tensor.imag.__get__",
        )
    },
    "view_as_complex": [by((2, 3, 2), lambda f, x: reals(f(x)))],
}
SPECTRAL |= {
    f"torch.nn.functional.max_unpool{n}d": [
        by((2, 3, *(2,) * n), lambda f, x, n=n: f(x, unpooled_places(n), 2)),
    ]
    for n in (1, 2, 3)
}


def unpooled_places(n: int) -> Tensor:
    """Positions that max-pooling of (2, 3, 4, ..) with windows of 2 found."""
    pool = getattr(torch.nn.functional, f"max_pool{n}d")
    return pool(normal(2, 3, *(4,) * n, seed=8), 2, return_indices=True)[1]


def convolutions(n: int) -> list[Case]:
    """Stride, padding, dilation, groups; batched or not."""
    size = (0, 6, 5, 3)[n]
    batched, alone, weight = (2, 4, *(size,) * n), (4, *(size,) * n), normal(2, 4, *(2,) * n)
    grouped = normal(2, 2, *(2,) * n)
    return [
        on(batched, weight, normal(2), 2, 1),
        on(batched, weight, padding="same", dilation=2),
        on(batched, grouped, normal(2), 1, 0, 1, 2),
        on(alone, weight, normal(2), padding=1),
    ]


def transposed(n: int) -> list[Case]:
    """The same for the transposed convolution (its weight is (in, out / groups, ...))."""
    batched, alone, weight = (2, 4, *(2,) * n), (4, *(2,) * n), normal(4, 1, *(3,) * n)
    return [
        on(batched, weight, normal(1), 2, 1, 1),
        on(batched, weight, normal(2), stride=2, groups=2),
        on(alone, weight, None, 1, 0, 0, 1, 2),
    ]


LINEAR: dict[str, list[Case]] = {
    **SPECTRAL,
    **{f"conv{n}d": convolutions(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": transposed(n) for n in (1, 2, 3)},
    "linear": [on((2, 3, 4), normal(5, 4), normal(5)), on((4,), normal(5, 4))],
    **{
        f"avg_pool{n}d": [
            on((2, 3, *(5,) * n), 2),
            on((2, 3, *(5,) * n), 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
            on((3, *(5,) * n), 2),
        ]
        for n in (1, 2, 3)
    },
    **{
        f"adaptive_avg_pool{n}d": [on((2, 3, *(5,) * n), 2), on((3, *(5,) * n), (3,) * n)]
        for n in (1, 2, 3)
    },
    **{
        name: [
            on((2, 3, 3, 4), scale_factor=2),
            on((2, 3, 3, 4), (5, 7), mode="bilinear", align_corners=True),
            on((2, 3, 3, 4), None, (1.5, 2.0), mode="bilinear", align_corners=False),
            on((2, 2, 4), 3, mode="linear"),
        ]
        for name in ("interpolate", "upsample")
    },
    "torch.nn.functional.interpolate": [
        on((2, 3, 3, 4), scale_factor=2),
        on((2, 3, 3, 4), (5, 7), mode="bilinear", align_corners=True),
        on((1, 2, 5, 6), (3, 2), mode="bilinear", antialias=True),
        on((2, 2, 3, 4), size=(2, 3), mode="area"),
        on((2, 2, 4, 4), scale_factor=1.7, mode="bicubic", recompute_scale_factor=True),
        on((1, 2, 2, 2, 3), scale_factor=2, mode="trilinear"),
        on((2, 2, 5), 3, mode="nearest-exact"),
    ],
    "pad": [
        on((2, 3, 4), (1, 2)),
        on((2, 3, 4), (1, 0, 0, 2, 1, 1), "constant", 0.3),
        on((2, 3, 4), (-1, 1)),
        on((2, 3, 4), (2, 1), "reflect"),
        on((3, 4), (2, 1), mode="replicate"),
        on((2, 3, 4, 5), (1, 1, 2, 0), "circular"),
    ],
    "grid_sample": [
        on((2, 3, 4, 5), normal(2, 3, 2, 2, seed=5), align_corners=False),
        on((1, 2, 3, 3, 3), normal(1, 2, 2, 1, 3, seed=6), "nearest", "border", True),
    ],
}
