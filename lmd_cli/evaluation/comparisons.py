"""The comparisons of the paper's tables: which modalities are replaced, whose part is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

_ORDER = ("radar", "lidar", "camera")
_PAIR_ORDER = ("camera", "radar", "lidar")
_LETTERS = {"camera": "C", "radar": "R", "lidar": "L"}


@dataclass(frozen=True)
class Comparison:
    """One column of a table: e.g. R_p/C, the camera's prediction when the radar is replaced.

    Attributes:
        perturbed: modalities that are replaced.
        target: modality whose part is compared before and after.
    """

    perturbed: tuple[str, ...]
    target: str

    @property
    def expected(self) -> str:
        """``change`` if the target was replaced, else ``keep``."""
        return "change" if self.target in self.perturbed else "keep"

    @property
    def perturbed_name(self) -> str:
        """As in ``metrics.csv``: ``radar``, ``camera+radar``."""
        return "+".join(self.perturbed)

    @property
    def title(self) -> str:
        """As in the paper's tables: ``R_p/C``, ``C_pR_p/L``."""
        return "".join(f"{letter(m)}_p" for m in self.perturbed) + f"/{letter(self.target)}"


def letter(modality: str) -> str:
    """The paper's letter, or the whole name of a modality that the paper does not have."""
    return _LETTERS.get(modality, modality)


def table_comparisons(modalities: Sequence[str]) -> list[Comparison]:
    """Comparisons in the order of the paper's tables.

    Two modalities: each replaced in turn (tables 1, 2). Three: two of three replaced (tables 7,
    8). Any other number: each replaced in turn.
    """
    if len(modalities) == 3:
        pairs = list(combinations(sorted(modalities, key=_pair_rank), 2))
        return [
            Comparison(pair, target) for pair in pairs for target in _kept_first(pair, modalities)
        ]
    return single_comparisons(modalities)


def single_comparisons(modalities: Sequence[str]) -> list[Comparison]:
    """Each modality replaced alone, every modality's prediction compared."""
    ordered = sorted(modalities, key=_rank)
    return [Comparison((name,), target) for name in ordered for target in ordered]


def measured_comparisons(modalities: Sequence[str]) -> list[Comparison]:
    """Those of the table and, which the paper does not have, one of three modalities replaced."""
    return list(dict.fromkeys((*table_comparisons(modalities), *single_comparisons(modalities))))


def _rank(modality: str) -> tuple[int, str]:
    return (_ORDER.index(modality) if modality in _ORDER else len(_ORDER), modality)


def _pair_rank(modality: str) -> tuple[int, str]:
    known = modality in _PAIR_ORDER
    return (_PAIR_ORDER.index(modality) if known else len(_PAIR_ORDER), modality)


def _kept_first(pair: tuple[str, ...], modalities: Sequence[str]) -> list[str]:
    return [m for m in modalities if m not in pair] + list(pair)
