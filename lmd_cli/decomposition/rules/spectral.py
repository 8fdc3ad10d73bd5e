"""Fourier transforms and complex numbers: linear, part by part.

Activations have no slope at a complex number and are refused there; sums, products, reshapes and
complex weights have the same rules as for real tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lmd_cli.decomposition.registry import aliases, getters, register_rule
from lmd_cli.decomposition.rules.common import call_plain, join, only_decomposed, over_rows
from lmd_cli.decomposition.rules.joining import joint_parts

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

_TRANSFORMS = """
    fft fft2 fftn ifft ifft2 ifftn rfft rfft2 rfftn irfft irfft2 irfftn
    hfft hfft2 hfftn ihfft ihfft2 ihfftn fftshift ifftshift stft istft
"""
_COMPLEX = "real imag view_as_real view_as_complex conj conj_physical resolve_conj resolve_neg"


@register_rule(
    *aliases(*_TRANSFORMS.split(), *_COMPLEX.split()),
    *getters("real", "imag"),
    kind="linear",
    equation="eq. 13",
)
def transform(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """The transform of every part."""
    x, run = only_decomposed(session, func, args, kwargs)
    stack = x.parts.contiguous() if func is torch.view_as_complex else x.parts
    return join(session, run(x.total), over_rows(run, stack), x.rows)


@register_rule(torch.complex, kind="sum", equation="eq. 6")
def complex_numbers(session: Session, func: Any, real: Any, imag: Any) -> Any:
    """real + i imag."""
    total = call_plain(func, (real, imag), {})
    return session.make(total, *joint_parts(session, torch.complex, (real, imag)))
