"""Tables 3 and 11: LMD, LRP and Shapley values, measured on the model at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmd_cli.evaluation.cost import (
    NOT_COUNTED,
    Cost,
    LrpComparison,
)
from lmd_cli.report.tables.render import Entry, Table

PASSES, LRP_OR_LMD = 3, 11
TITLES = {
    PASSES: "Computational complexity and memory",
    LRP_OR_LMD: "Comparison of LRP and LMD",
}
#: What the paper prints, by table.
PAPER: dict[int, tuple[list[str], list[list[str]]]] = {
    PASSES: (
        ["Methods", "Passes", "Computational Complexity", "Memory Consumption"],
        [
            ["LRP", "2 FWD + 1 BWD", "O(1)", "O(√N_l)"],
            ["Shapley-based", "2^M FWD", "O(2^M)", "O(1)"],
            ["LMD", "2 FWD", "O(1)", "O(1)"],
        ],
    ),
    LRP_OR_LMD: (
        [
            *("Method", "Target", "Result", "Direction", "Computation"),
            *("Element-wise Op.", "Property"),
        ],
        [
            [
                *("LRP", "Output Segment", "Input Segment", "Backward", "2 FWD + 1 BWD"),
                *("Direct pass", "Conservation rule"),
            ],
            [
                *("LMD", "Input Segment", "Output Segment", "Forward", "2 FWD"),
                *("Scaled pass", "Eq.(8)"),
            ],
        ],
    ),
}


@dataclass(frozen=True)
class Measured:
    """Everything that the two tables say of a model.

    Attributes:
        modalities: of the model.
        plain: cost of a plain pass behind the encoders.
        costs: of the methods, by numbers of modalities.
        comparison: LRP beside LMD.
        token: of the sample.
    """

    modalities: tuple[str, ...]
    plain: Cost
    costs: Sequence[Cost]
    comparison: LrpComparison
    token: str


def cost_table(measured: Measured, name: str) -> Table:
    """Table 3, measured."""
    header = ["Methods", "M", "Passes", "GFLOPs", "x plain", "MB", "x plain", "s", "x plain"]
    rows = [_cost_row(c, measured.plain) for c in (measured.plain, *measured.costs)]
    notes = [
        f"Measured at sample {measured.token}, behind the encoders (and a linear fusion layer); "
        "with fewer than all modalities separated, the others are constants.",
        "LMD's one pass carries M parts and the bias beside the total.",
        NOT_COUNTED,
        "MB: largest sum of the tensors that the method makes and that are alive at one time.",
    ]
    return Table(_caption(PASSES, name), [("", len(header))], header, rows, notes)


def _cost_row(cost: Cost, plain: Cost) -> list[Entry]:
    passes = f"{cost.forward} FWD" + (f" + {cost.backward} BWD" if cost.backward else "")
    texts = [
        *(cost.method, "" if cost is plain else str(cost.modalities), passes),
        *(f"{cost.flops / 1e9:.3f}", f"{cost.flops / max(plain.flops, 1):.2f}"),
        *(f"{cost.bytes / 1e6:.1f}", f"{cost.bytes / max(plain.bytes, 1):.2f}"),
        *(f"{cost.seconds:.4f}", f"{cost.seconds / plain.seconds:.2f}"),
    ]
    return [Entry(text) for text in texts]


def comparison_table(measured: Measured, name: str) -> Table:
    """Table 11, its computation and property measured."""
    header = [*PAPER[LRP_OR_LMD][0][:-1], "Property (measured)"]
    comparison, costs = measured.comparison, {c.method: c for c in measured.costs}
    handed = sum(comparison.relevance[m] for m in measured.modalities)
    rows = [
        [
            *("LRP", "Output Segment", "Input Segment", "Backward"),
            f"{costs['LRP'].forward} FWD + {costs['LRP'].backward} BWD a target",
            "Direct pass",
            f"Conservation: features {handed:.4g} + constants {comparison.relevance['bias']:.4g} "
            f"= target {comparison.target:.4g}",
        ],
        [
            *("LMD", "Input Segment", "Output Segment", "Forward"),
            f"{costs['LMD'].forward} FWD with {len(measured.modalities)} parts and the bias",
            "Scaled pass",
            f"Eq.(8): residual {comparison.residual:.1e}",
        ],
    ]
    parts = ", ".join(
        f"{m} {comparison.relevance[m]:.4g} and {comparison.parts[m]:.4g}"
        for m in measured.modalities
    )
    notes = [
        f"Measured at sample {measured.token}; target: the mean logit over the whole map.",
        "As LRP is read here (activations and scaling pass relevance directly, constants' shares "
        "are not handed on), it is the transpose of LMD under identity-ratio: a modality's "
        f"relevance is LMD's part of the target ({parts}; they differ by {comparison.distance:.1e} "
        "of the larger part). LMD has the whole map at once, LRP one number at a time.",
    ]
    entries = [[Entry(text) for text in row] for row in rows]
    return Table(_caption(LRP_OR_LMD, name), [("", len(header))], header, entries, notes)


def paper_cost_tables(number: int) -> list[Table]:
    """What the paper prints."""
    header, rows = PAPER[number]
    caption = f"Table {number} of the paper: {TITLES[number]}"
    entries = [[Entry(text) for text in row] for row in rows]
    return [Table(caption, [("", len(header))], header, entries, [])]


def _caption(number: int, name: str) -> str:
    return f"Table {number} for {name}: {TITLES[number]}"
