"""A variant's prediction by itself, sharing nothing with others."""

from __future__ import annotations

from typing import Any

from lmd_cli.decomposition import Variant
from lmd_cli.evaluation.variants import Prediction, SharedLinearisation, operating_point
from lmd_cli.evaluation.walk import Visit


def predict_alone(network: Any, visit: Visit, variant: Variant, output: str) -> Prediction:
    """Linearised under the variant itself, not under its base."""
    point = operating_point(network, visit, output)
    return SharedLinearisation(point, visit.partners, variant).prediction
