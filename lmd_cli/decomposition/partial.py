"""The network with only some kinds of its operations linearised at one operating point.

Table 1 compares networks in which only the activations, or only the normalisation layers, follow
their maps of the clean sample; everything else responds to the input as it is. Constants are part
of the network here: this is a function of whole inputs, not of a modality's part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.frozen import Stream
from lmd_cli.decomposition.result import Decomposition
from lmd_cli.decomposition.runner import LINEARISED_KINDS, Runner

#: With the divisors of norms that a network writes itself.
NORMALISATIONS = frozenset({"normalisation", "statistic", "quotient"})
#: Every other operation that is not linear: slopes, attention weights, selected elements, and
#: comparisons and sampling locations, which decide as an activation's sign does.
ACTIVATIONS = LINEARISED_KINDS - NORMALISATIONS


class PartiallyLinear:
    """``function`` with chosen kinds of operations replaced by their maps at the operating point.

    At the operating point it gives what ``function`` gives, to rounding. Products of two
    features run as they are.

    Args:
        function: the function that was decomposed, called as ``function(**inputs, **constants)``.
        decomposition: made with ``keep_frozen=True`` under a rule that gives all constants to the
            bias (identity rules for BatchNorm and activations; ``ratio`` or ``identity`` for the
            other norms).
        kinds: :data:`ACTIVATIONS`, :data:`NORMALISATIONS`, both or none.
        constants: as in ``decompose``.

    Raises:
        DecompositionError: no maps were kept, or constants are not all with the bias.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        decomposition: Decomposition,
        kinds: frozenset[str],
        *,
        constants: Mapping[str, Any] | None = None,
    ):
        if decomposition.tape is None:
            raise DecompositionError("nothing is linearised: decompose with keep_frozen=True")
        for linear_map in decomposition.tape:
            _require_whole(linear_map)
        self._run = Runner(function, decomposition.tape, dict(constants or {}), kinds)
        # The bias's stream is the one that constants go to.
        self._stream = Stream(None, decomposition.layout.uniform_share, {}, keep=False)

    def __call__(self, **inputs: Any) -> Any:
        """The output for inputs of the same structure; several as a batch go where the operating
        point is a batch of one."""
        return self._run(inputs, self._stream)


def _require_whole(linear_map: Any) -> None:
    split = getattr(linear_map, "split", "identity") != "identity"
    if split or getattr(linear_map, "shares", None) is not None:
        raise DecompositionError(
            "the maps share constants out among the modalities; decompose with identity-ratio or "
            "identity-identity"
        )
