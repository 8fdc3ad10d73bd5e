"""What the linearised network is made of: where features are multiplied, what is shared out."""

from __future__ import annotations

from collections.abc import Iterator

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.linearised.program import Output, Program
from lmd_cli.decomposition.maps import Affine
from lmd_cli.decomposition.result import Decomposition


def kept_program(decomposition: Decomposition) -> Program:
    """The maps of a decomposition.

    Raises:
        DecompositionError: they were not kept.
    """
    if decomposition.program is None:
        raise DecompositionError("the maps were not kept: decompose with keep_frozen=True")
    return decomposition.program


def outputs_of(program: Program) -> Iterator[Output]:
    """Every result of every step, in order."""
    return (output for step in program.steps for output in step.outputs)


def products_of(program: Program) -> list[bool]:
    """For each product of two factors that carry parts, whether both depend on the inputs."""
    products = (o for o in outputs_of(program) if o.map is not None)
    return [o.varies for o in products if not isinstance(o.map, Affine)]


def products_of_features(program: Program) -> int:
    """How many products are met up to the last whose factors both depend on the inputs."""
    varying = [i for i, varies in enumerate(products_of(program), start=1) if varies]
    return varying[-1] if varying else 0


def splits_bias(program: Program) -> bool:
    """Whether an activation's map depends on the bias part: Appendix C, or slopes from it."""
    maps = (output.map for output in outputs_of(program))
    affine = [m for m in maps if isinstance(m, Affine)]
    return any(m.shares is not None or m.slopes is not None for m in affine)


def shares_constants(program: Program) -> bool:
    """Whether any constant goes to a modality: shared out (eq. 10), or by Appendix C."""
    return splits_bias(program) or any(output.uniform for output in outputs_of(program))


def shared_alike(program: Program) -> bool:
    """Whether variants that differ only in where constants go have parts that differ by constants.

    They do where features are multiplied with each other before any constant can be shared out.
    """
    outputs = list(outputs_of(program))
    last = max((i for i, output in enumerate(outputs) if output.varies), default=0)
    affine = [output.map for output in outputs[:last] if isinstance(output.map, Affine)]
    return not any(m.origin is not None or m.splits for m in affine)
