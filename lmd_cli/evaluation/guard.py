"""One visit's guard: what stops a run whose numbers are not exact."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from lmd_cli.assembly.contract import FusionNetwork
from lmd_cli.decomposition import ConservationError
from lmd_cli.evaluation.exactness import (
    CONSERVES,
    SINGLE,
    blame,
    inexact,
    limits_of,
    require_within,
    warn_of_size,
)
from lmd_cli.evaluation.numbers import Numbers
from lmd_cli.evaluation.variants import Families, WholeFuse, as_module
from lmd_cli.evaluation.verification import verify
from lmd_cli.evaluation.walk import Encoding, Visit, explained_encoding


class Exactness:
    """Compares what was measured at one visit with the limits of its precision.

    Args:
        network, visit, output: who explains which output of what.
        families: gives the variants' predictions.
    """

    def __init__(self, network: FusionNetwork, visit: Visit, output: str, families: Families):
        self._network, self._visit, self._output = network, visit, output
        self.families = families

    def conserving(self, variant: str, numbers: Numbers, total: Tensor) -> float:
        """The residual, if the parts sum to the total.

        Raises:
            RunError: they do not.
        """
        limit = limits_of(total).conservation
        what = "|total - sum of parts|, over the sum of |parts|,"
        finite = math.isfinite(numbers.residual)
        worst = numbers.parts_residual if finite else numbers.residual
        self._require(variant, what, worst, limit)
        return numbers.residual

    def verified(self, variant: str) -> float:
        """The replay deviation, if the parts are those of the linearised network, and the total is
        the plain network's.

        Raises:
            RunError: they are not.
        """
        prediction = self.families.under(variant)
        limits = limits_of(prediction.total)
        found = verify(self._network, self._visit, variant, self._output, prediction)
        said = "the deviation of the total from the plain network's output"
        self._require(variant, said, found.total, limits.total)
        self._require(variant, "the replay deviation", found.replay, limits.replay)
        if self._visit.position == 0:  # once a run
            warn_of_size(variant, found.times)
        return found.replay

    @contextmanager
    def named(self, variants: Sequence[str]) -> Iterator[None]:
        """Says where it begins that a whole decomposition does not conserve.

        Args:
            variants: those that are measured.

        Raises:
            RunError: in place of a :class:`ConservationError`.
        """
        try:
            yield
        except ConservationError as error:
            said = (self._blame(name, SINGLE.conservation) for name in variants)
            found = next((text for text in said if text != CONSERVES), str(error))
            what = f"sample {self._visit.sample.token}: the parts do not sum to the total"
            raise inexact(what, found) from error

    def _require(self, variant: str, what: str, value: float, limit: float) -> None:
        about = f"{variant} at sample {self._visit.sample.token}: {what}"
        require_within(about, value, limit, lambda: self._blame(variant, limit))

    def _blame(self, variant: str, limit: float) -> str:
        sample, root = self._visit.sample, as_module(self._network)
        assert isinstance(sample, Encoding)
        if sample.features is None:
            what = explained_encoding(self._network, self._output, sample)
            return blame(what.fuse, what.features, variant, root, limit)
        whole = WholeFuse(self._network, self._visit, self._output)
        return blame(whole.fuse, sample.features, variant, root, limit)
