"""The rules, by kind of operation. Importing this package registers them all."""

from lmd_cli.decomposition.rules import (
    activation,
    arithmetic,
    attention,
    constant,
    joining,
    linear,
    normalisation,
    selection,
    softmax,
    structure,
)

__all__ = [
    "activation",
    "arithmetic",
    "attention",
    "constant",
    "joining",
    "linear",
    "normalisation",
    "selection",
    "softmax",
    "structure",
]
