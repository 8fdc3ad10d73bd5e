"""What is measured at one visit under LMD's variants, as one tensor.

Nothing waits for a GPU in between, so that all of it can be recorded as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmd_cli.assembly.contract import FusionNetwork
from lmd_cli.assembly.forward import Fused
from lmd_cli.evaluation.metrics import mse_rows, pcc_rows
from lmd_cli.evaluation.variants import Families, Prediction
from lmd_cli.evaluation.walk import Encoding, Skipped, Visit
from lmd_cli.runtime.compute import Chunks
from lmd_cli.runtime.cuda_graphs import Graph

#: PCC and MSE.
Pair = tuple[float, float]


@dataclass(frozen=True)
class Numbers:
    """A variant at one visit.

    Attributes:
        residual, parts_residual: of conservation, as :class:`~.families.Prediction`'s.
        kept: for each modality, its clean part compared with itself: the linearisation is the
            clean sample's, so that a part whose sensor was kept is the clean part.
        moved: for each modality and offset, its part from the partner compared with the clean one.
    """

    residual: float
    parts_residual: float
    kept: dict[str, Pair]
    moved: dict[str, dict[int, Pair]]


def as_tensor(families: Families, variants: Sequence[str]) -> dict[str, Tensor]:
    """All variants' numbers in a row ``(n,)``, float64, and the total."""
    found: dict[str, Tensor] = {}
    values: list[Tensor] = []
    for variant in variants:
        prediction = families.under(variant)
        values += _of(prediction)
        found["total"] = prediction.total
    if values:
        found["numbers"] = torch.cat([v.double().reshape(-1) for v in values])
    return found


def _of(prediction: Prediction) -> list[Tensor]:
    parts = prediction.parts
    kept = [_compared([part], part) for part in parts.values()]
    moved = [
        _compared([x for x in maps if x is not None], parts[name])
        for name, maps in prediction.perturbed.items()
    ]
    return [prediction.residual, prediction.parts_residual, *kept, *moved]


def _compared(maps: Sequence[Tensor], with_: Tensor) -> Tensor:
    """PCC and MSE of each map ``(n, 2)``."""
    if not maps:
        return with_.new_zeros(0, 2)
    rows = torch.stack(list(maps))
    return torch.stack([pcc_rows(rows, with_), mse_rows(rows, with_)], dim=1)


def read_numbers(
    found: Mapping[str, Tensor], variants: Sequence[str], modalities: Sequence[str], visit: Visit
) -> dict[str, Numbers]:
    """What :func:`as_tensor` put in a row, by variant."""
    values = iter(found["numbers"].tolist() if "numbers" in found else ())
    readable = [m for m, p in enumerate(visit.partners, start=1) if isinstance(p, Encoding)]

    def pair() -> Pair:
        return next(values), next(values)

    return {
        variant: Numbers(
            next(values),
            next(values),
            {name: pair() for name in modalities},
            {name: {m: pair() for m in readable} for name in modalities},
        )
        for variant in variants
    }


class RecordedNumbers:
    """:func:`as_tensor` of visits behind a linear fusion layer, as a CUDA graph.

    Args:
        network, variants, output: what is measured.
        chunks: of all visits.
    """

    def __init__(
        self, network: FusionNetwork, variants: Sequence[str], output: str, chunks: Chunks
    ):
        self._network, self._variants = network, list(variants)
        self._output, self._chunks = output, chunks
        self._graph = Graph(self._run, "the decomposition")

    def __call__(self, visit: Visit) -> dict[str, Tensor] | None:
        """Nothing where a partner is missing: such a visit is not like the others."""
        samples = [visit.sample, *visit.partners]
        fused = [x.fused for x in samples if isinstance(x, Encoding) and x.fused is not None]
        if len(fused) < len(samples):
            return None
        clean = fused[0]
        return self._graph(  # type: ignore[no-any-return]
            {
                "total": clean.total,
                "parts": clean.parts,
                "bias": clean.bias,
                "partners": [x.parts for x in fused[1:]],
            }
        )

    def _run(self, tree: dict[str, Any]) -> dict[str, Tensor]:
        sample = Fused(tree["total"], tree["parts"], tree["bias"])
        partners: list[Encoding | Skipped] = [
            Encoding(0, "", Fused(tree["total"], parts, None), None) for parts in tree["partners"]
        ]
        visit = Visit(0, Encoding(0, "", sample, None), partners, self._chunks)
        return as_tensor(Families(self._network, visit, self._output), self._variants)
