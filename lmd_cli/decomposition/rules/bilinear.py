"""Products of two decomposed tensors (appendix D.2), as in attention.

A term belongs to a modality where it multiplies features of that modality with each other or with
the bias, and to the bias where both factors are bias. What different modalities make together is
the interaction, a part of its own; anything times interaction is interaction. So the modalities'
parts are the same whether the interaction is reported apart or merged into the bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmd_cli.decomposition.frozen import FrozenProduct
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.rules.common import add_terms, over_rows
from lmd_cli.decomposition.tensor import DecomposedTensor

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

Product = Callable[[Tensor, Tensor], Tensor]


def bilinear(
    session: Session, total: Tensor, a: DecomposedTensor, b: DecomposedTensor, product: Product
) -> tuple[Tensor, tuple[int, ...]]:
    """Parts of ``product(a, b)``, which must be linear in each factor.

    For each modality's row e, clean or extra: A_e B_e + A_e B_b + A_b B_e with the clean bias b;
    extras never meet each other. The bias is A_b B_b. The interaction is what the total has
    beyond these.

    Args:
        total: ``product(a.total, b.total)``, any shape.
        product: called once or twice for each row.

    Returns:
        The stack ``(rows, *total.shape)`` and its rows.
    """
    layout = session.layout
    constant = [set(x.rows) <= {layout.bias} for x in (a, b)]
    if session.tape is not None:
        kept = [
            x.row(layout.bias).clone() if c else None for x, c in zip((a, b), constant, strict=True)
        ]
        session.freeze(FrozenProduct(product, *kept))
    return session.after_product(_terms(layout, total, a, b, product, constant))


def _terms(
    layout: Layout,
    total: Tensor,
    a: DecomposedTensor,
    b: DecomposedTensor,
    product: Product,
    constant: list[bool],
) -> tuple[Tensor, tuple[int, ...]]:
    """:func:`bilinear`'s stack and rows; ``constant`` says which factors have only a bias."""
    if not (a.rows and b.rows):  # a factor without parts is zero, and so is the product
        return torch.zeros_like(total).unsqueeze(0), (layout.bias,)
    if any(constant):
        return _with_constant(product, a, b, constant[0])
    bias_a, bias_b = _row(a, layout.bias), _row(b, layout.bias)
    found: dict[int, Tensor] = {}
    for row in range(layout.bias):
        value = own_terms(product, _row(a, row), _row(b, row), bias_a, bias_b)
        if value is not None:
            found[row] = value
    if bias_a is not None and bias_b is not None:
        found[layout.bias] = product(bias_a, bias_b)
    if _interact(a, b, layout):
        found[layout.interaction] = _remainder(total, found, layout)
    if not found:  # the factors' rows never meet: the product is zero
        found[layout.bias] = torch.zeros_like(total)
    return torch.stack([found[row] for row in sorted(found)]), tuple(sorted(found))


def _with_constant(
    product: Product, a: DecomposedTensor, b: DecomposedTensor, first: bool
) -> tuple[Tensor, tuple[int, ...]]:
    """One factor has no part but the bias (frozen attention weights): the product is linear in
    the other, so each of its rows meets that bias, the interaction too."""
    factor, other = (a.parts[0], b) if first else (b.parts[0], a)
    run = (lambda h: product(factor, h)) if first else (lambda h: product(h, factor))
    return over_rows(run, other.parts), other.rows


def own_terms(
    product: Product,
    own_a: Tensor | None,
    own_b: Tensor | None,
    bias_a: Tensor | None,
    bias_b: Tensor | None,
) -> Tensor | None:
    """A_e (B_e + B_b) + A_b B_e; an absent factor (``None``) is zero, and so is the result."""
    partner = add_terms(own_b, bias_b)
    left = None if own_a is None or partner is None else product(own_a, partner)
    right = None if bias_a is None or own_b is None else product(bias_a, own_b)
    return add_terms(left, right)


def _row(x: DecomposedTensor, row: int) -> Tensor | None:
    return x.row(row) if row in x.rows else None


def _interact(a: DecomposedTensor, b: DecomposedTensor, layout: Layout) -> bool:
    """Whether different modalities meet, or an interaction meets anything."""
    count = len(layout.modalities)
    left, right = ({row for row in x.rows if row < count} for x in (a, b))
    meet = any(m != n for m in left for n in right)
    return meet or layout.interaction in a.rows or layout.interaction in b.rows


def _remainder(total: Tensor, found: dict[int, Tensor], layout: Layout) -> Tensor:
    rest = total.clone()
    for row in layout.clean:
        if row in found:
            rest -= found[row]
    return rest


def bilinear_rule(
    session: Session, total: Tensor, a: Any, b: Any, product: Product
) -> DecomposedTensor:
    """A product of two decomposed tensors as a new one; see :func:`bilinear`."""
    return session.make(total, *bilinear(session, total, a, b, product))
