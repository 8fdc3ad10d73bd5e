"""The rules, by kind of operation. Importing this package registers them all."""

from lmd_cli.decomposition.rules import (
    activation,
    arithmetic,
    constant,
    joining,
    linear,
    normalisation,
    selection,
    structure,
)

__all__ = [
    "activation",
    "arithmetic",
    "constant",
    "joining",
    "linear",
    "normalisation",
    "selection",
    "structure",
]
