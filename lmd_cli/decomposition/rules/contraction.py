"""Einstein summation with three and more decomposed operands: pair by pair.

A product of products keeps what appendix D.2 says whatever the order: a modality's part is what
its own features and the bias make together, the interaction all else.
"""

from __future__ import annotations

from string import ascii_letters
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.rules.composite import partly_composed


def _operands(args: Any) -> list[Any]:
    nested = len(args) == 2 and isinstance(args[1], (list, tuple))
    return list(args[1]) if nested else list(args[1:])


def several_factors(args: Any, kwargs: Any) -> bool:
    """Whether more than two operands depend on the inputs."""
    carried = [x for x in _operands(args) if type(x) not in (Tensor, torch.nn.Parameter)]
    return len(carried) > 2


@partly_composed(torch.einsum, when=several_factors)
def pairwise(equation: str, *operands: Any) -> Tensor:
    """The same sum over two operands at a time, from left to right."""
    tensors = _operands((equation, *operands))
    inputs, output = _explicit(equation, tensors)
    while len(tensors) > 2:
        later = set(output).union(*inputs[2:])
        kept = "".join(dict.fromkeys(c for c in inputs[0] + inputs[1] if c in later))
        first = torch.einsum(f"{inputs[0]},{inputs[1]}->{kept}", tensors[0], tensors[1])
        tensors, inputs = [first, *tensors[2:]], [kept, *inputs[2:]]
    return torch.einsum(f"{','.join(inputs)}->{output}", *tensors)


def _explicit(equation: str, tensors: list[Any]) -> tuple[list[str], str]:
    """Subscripts with an output and with letters for every ellipsis."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    spare = [c for c in ascii_letters if c not in left]
    counts = [
        t.dim() - len(s) + 3 if "..." in s else 0 for s, t in zip(terms, tensors, strict=True)
    ]
    dots = "".join(spare[: max(counts)])
    filled = [s.replace("...", dots[len(dots) - n :]) for s, n in zip(terms, counts, strict=True)]
    letters = [c for c in left if c.isalpha()]
    implicit = dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return filled, right.replace("...", dots) if arrow else implicit
