"""What can go wrong in a decomposition; each message names the operation and its module."""

from __future__ import annotations


class DecompositionError(RuntimeError):
    """Base of the errors raised while a function runs on decomposed tensors."""


class NoRuleError(DecompositionError):
    """An operation met a decomposed tensor and no rule says how parts go through it."""


class LeakError(DecompositionError):
    """Parts would have been dropped silently (their value would then count as bias)."""


class ConservationError(DecompositionError):
    """Total and parts differ after an operation: its rule is wrong (``audit="raise"``)."""


class InputError(DecompositionError):
    """An input, constant or option of :func:`lmd_cli.decompose` that cannot be used."""
