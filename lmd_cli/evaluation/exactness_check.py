"""The check that one sample's decomposition is exact, which stops a run where it is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from lmd_cli.assembly.contract import FusionNetwork
from lmd_cli.decomposition import ConservationError, Variant
from lmd_cli.evaluation.tolerances import (
    CONSERVES,
    SINGLE,
    inexact_error,
    locate_deviation,
    require_within,
    tolerances_of,
    warn_of_large_parts,
)
from lmd_cli.evaluation.variants import VariantPredictions, WholeFuse, as_module
from lmd_cli.evaluation.verification import verify
from lmd_cli.evaluation.walk import Encoding, Visit, explained_encoding


class ExactnessCheck:
    """Compares what was measured at one visit with the limits of its precision.

    Args:
        network, visit, output: who explains which output of what.
        predictions: of the variants.
    """

    def __init__(
        self, network: FusionNetwork, visit: Visit, output: str, predictions: VariantPredictions
    ):
        self._network, self._visit, self._output = network, visit, output
        self.predictions = predictions

    def conserving(
        self, variant: Variant, residual: float, parts_residual: float, total: Tensor
    ) -> float:
        """The residual, if the parts sum to the total.

        Raises:
            RunError: they do not.
        """
        limit = tolerances_of(total).conservation
        what = "|total - sum of parts|, over the sum of |parts|,"
        worst = parts_residual if math.isfinite(residual) else residual
        self._require(variant, what, worst, limit)
        return residual

    def verified(self, variant: Variant) -> float:
        """The replay deviation, if the parts are those of the linearised network, and the total is
        the plain network's.

        Raises:
            RunError: they are not.
        """
        prediction = self.predictions.under(variant)
        limits = tolerances_of(prediction.total)
        verified = verify(self._network, self._visit, variant, self._output, prediction)
        what = "the deviation of the total from the plain network's output"
        self._require(variant, what, verified.total, limits.total)
        self._require(variant, "the replay deviation", verified.replay, limits.replay)
        if self._visit.position == 0:  # once a run
            warn_of_large_parts(variant, verified.times)
        return verified.replay

    @contextmanager
    def located(self, variants: Sequence[Variant]) -> Iterator[None]:
        """Says where it begins that a whole decomposition does not conserve.

        Args:
            variants: those that are measured.

        Raises:
            RunError: in place of a :class:`ConservationError`.
        """
        try:
            yield
        except ConservationError as error:
            places = (self._locate(variant, SINGLE.conservation) for variant in variants)
            where = next((place for place in places if place != CONSERVES), str(error))
            what = f"sample {self._visit.sample.token}: the parts do not sum to the total"
            raise inexact_error(what, where) from error

    def _require(self, variant: Variant, what: str, value: float, limit: float) -> None:
        about = f"{variant} at sample {self._visit.sample.token}: {what}"
        require_within(about, value, limit, lambda: self._locate(variant, limit))

    def _locate(self, variant: Variant, limit: float) -> str:
        sample, root = self._visit.sample, as_module(self._network)
        assert isinstance(sample, Encoding)
        if sample.features is None:
            what = explained_encoding(self._network, self._output, sample)
            return locate_deviation(what.fuse, what.features, variant, root, limit)
        whole = WholeFuse(self._network, self._visit, self._output)
        return locate_deviation(whole.fuse, sample.features, variant, root, limit)
