"""Errors of a decomposition; each message names the operation and its module.

None is a ``RuntimeError``: a network that catches torch's errors and goes another way must not
catch these. A run in which one was raised fails even if the network caught it.
"""

from __future__ import annotations


class DecompositionError(Exception):
    """Base of the errors raised while a function is decomposed."""


class NoRuleError(DecompositionError):
    """An operation met a tensor that carries parts, and no rule says how parts go through it."""


class LeakError(DecompositionError):
    """Parts would have been dropped silently (their value would then count as bias)."""


class ConservationError(DecompositionError):
    """Total and parts differ: a rule is wrong, or a total was written to past the parts."""


class InputError(DecompositionError):
    """An input, constant or option of :func:`lmd_cli.decompose` that cannot be used."""
