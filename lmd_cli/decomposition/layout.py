"""Which part lies in which row of the stack that a decomposed tensor carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from lmd_cli.decomposition.errors import InputError

BIAS, INTERACTION = "bias", "interaction"


@dataclass(frozen=True)
class Layout:
    """Rows of the parts' stack: the clean modalities, the extras, the bias, the interaction.

    The interaction is what different modalities make together in a product (appendix D.2); its
    row is there only behind such a product.

    An extra is one modality taken from another input (another sample, say) that rides along at
    the same operating point; it never enters the total.

    Attributes:
        modalities: names of the M modalities, in order.
        extras: how many extras each modality has.
    """

    modalities: tuple[str, ...]
    extras: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.modalities:
            raise InputError("decompose needs at least one modality")
        for name in (BIAS, INTERACTION):
            if name in self.modalities:
                raise InputError(f"{name!r} is the name of a part that no modality owns; rename it")
        for name in self.extras:
            if name not in self.modalities:
                known = ", ".join(self.modalities)
                raise InputError(f"extras for {name!r}, which is not a modality (known: {known})")

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """For each row of a modality or extra, the index of the modality that it belongs to."""
        clean = tuple(range(len(self.modalities)))
        counts = (self.extras.get(name, 0) * self.copies for name in self.modalities)
        return clean + tuple(m for m, count in enumerate(counts) for _ in range(count))

    @property
    def copies(self) -> int:
        """How many rows each extra has."""
        return 1

    @property
    def bias(self) -> int:
        """Row of the bias part."""
        return len(self.owners)

    @property
    def interaction(self) -> int:
        """Row of the interaction (the last)."""
        return self.bias + 1

    @property
    def clean(self) -> tuple[int, ...]:
        """Rows whose sum is the total: the modalities, the bias and the interaction."""
        return (*range(len(self.modalities)), self.bias, self.interaction)

    @property
    def all_rows(self) -> tuple[int, ...]:
        """Every row but the interaction, which owns no share of a constant."""
        return tuple(range(self.bias + 1))

    def all_with(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """:attr:`all_rows`, and the interaction if ``rows`` has it."""
        return (*self.all_rows, self.interaction) if self.interaction in rows else self.all_rows

    @property
    def uniform_share(self) -> float:
        """Share of a constant under the uniform rule: 1 / (M + 1), whatever rides along."""
        return 1.0 / (len(self.modalities) + 1)

    def extra_rows(self, modality: str) -> Sequence[int]:
        """Rows of a modality's extras, in the order given."""
        owner = self.modalities.index(modality)
        first = len(self.modalities)
        return [row for row in range(first, self.bias) if self.owners[row] == owner]

    @property
    def outer(self) -> Layout:
        """The layout of what is reported."""
        return self

    def reported(self, stack: Tensor, rows: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
        """A stack with its rows as a result gives it, in the layout :attr:`outer`."""
        return stack, rows
