"""The paper's tables by number: what each compares, for which models, in which layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lmd_cli.evaluation.comparisons import Comparison, table_comparisons

Metric = Literal["pcc", "mse"]
#: What a model must have for a table: exactly so many modalities, attention, or nothing.
Needs = Literal["two", "three", "attention", "any"]

MARK = "✓"


@dataclass(frozen=True)
class Row:
    """One row: a method by its name on the command line, and what its label columns say."""

    method: str
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """As in ``metrics.csv``, where a variant of LMD stands by itself."""
        return self.method.removeprefix("lmd:")


@dataclass(frozen=True)
class TableSpec:
    """A table of the paper.

    Attributes:
        number: the paper's.
        title: the paper's caption in short.
        headers: of the label columns.
        rows: in order.
        metrics: the groups of columns.
        needs: of the model.
        decimals: of mean and standard deviation.
        keep_only: only cells whose sensor was kept.
        notes: where the paper's own figures cannot come out under its own text.
    """

    number: int
    title: str
    headers: tuple[str, ...]
    rows: tuple[Row, ...]
    metrics: tuple[Metric, ...]
    needs: Needs
    decimals: tuple[int, int] = (2, 2)
    keep_only: bool = False
    notes: tuple[str, ...] = ()

    @property
    def names_modalities(self) -> bool:
        """Whether the paper's table has a column that says which sensors."""
        return self.needs != "three"

    def cells(self, modalities: Sequence[str]) -> list[Comparison]:
        """The columns under each metric."""
        cells = table_comparisons(modalities)
        return [c for c in cells if c.expected == "keep"] if self.keep_only else cells


_LINEARISED = (
    Row("leave-one-out", ("Baseline", "", "")),
    Row("partial-activations", ("Baseline", MARK, "")),
    Row("partial-normalisations", ("Baseline", "", MARK)),
    Row("lmd:identity-ratio", ("LMD (Ratio Rule)", MARK, MARK)),
)
_VARIANTS = (
    Row("lmd:uniform-identity", ("Uniform - Identity",)),
    Row("lmd:identity-identity", ("Identity - Identity",)),
    Row("lmd:identity-uniform", ("Identity - Uniform",)),
    Row("lmd:identity-ratio", ("Identity - Ratio",)),
)
_SHAPLEY = (Row("shapley", ("SHAP",)), Row("lmd-shapley:identity-ratio", ("LMD + SHAP",)))
_SPLITS = (
    Row("lmd:identity-ratio-sum", ("Sum-Splitting",)),
    Row("lmd:identity-ratio-ratio", ("Ratio-Splitting",)),
)

_BASELINE = (
    "The paper does not define its baselines' predictions. Here a modality's prediction is "
    "G(x) - G(x with it zeroed), G the network with nothing, only activations, or only "
    "normalisation layers linearised at the clean sample; with everything linearised it is LMD's "
    "part."
)
_CONSTANTS = (
    "The linearisation is frozen at the clean sample, so constants cancel in the difference of two "
    "inputs: the MSE of a replaced sensor is the same for all identity and uniform rules and for "
    "all activation splits, and kept cells are exactly 1 and 0. The paper prints small differences."
)
_THREE = (
    "A sensor's part depends on its own input alone, so C_pR_p/C = C_pL_p/C, C_pR_p/R = R_pL_p/R "
    "and C_pL_p/L = R_pL_p/L under LMD. The paper prints small differences."
)
_FURTHER = (
    "Rows below the paper's are those of the config's variants that no table of the paper has."
)

TABLES = {
    spec.number: spec
    for spec in (
        TableSpec(
            1,
            "Linearisation experiments",
            ("Method", "Act.", "Norm."),
            _LINEARISED,
            ("pcc", "mse"),
            "two",
            notes=(
                _BASELINE,
                "The paper's LiDAR rows repeat the MSE means of its radar rows for all three "
                "baselines, and the PCC means of two of them.",
            ),
        ),
        TableSpec(
            2,
            "LMD variants",
            ("BN-LN",),
            _VARIANTS,
            ("pcc", "mse"),
            "two",
            notes=(_CONSTANTS,),
        ),
        TableSpec(
            4,
            "Modality replacement: SHAP and LMD + SHAP",
            ("Method",),
            _SHAPLEY,
            ("pcc",),
            "any",
            (4, 2),
            keep_only=True,
            notes=(
                "LMD + SHAP: part m is h_m + phi_m, phi the Shapley values of the bias part of the "
                "network linearised at each coalition; phi is worked out again at the perturbed "
                "input, h_m stays linearised at the clean sample.",
                "With two sensors a kept sensor's part moves by half the change of "
                "v(both) - v(one) - v(other) + v(none), what the sensors make together: v is the "
                "prediction for SHAP, its bias part for LMD + SHAP. LMD + SHAP is the steadier "
                "where that changes less in the bias part than in the prediction, as it must have "
                "in the paper. On the SimpleBEV demos of two sensors it changes 1.7 to 1.9 times "
                "as much, because the linear parts change too when a sensor is zeroed.",
            ),
        ),
        TableSpec(
            6,
            "Bias splitting in activations",
            ("Activation",),
            _SPLITS,
            ("pcc", "mse"),
            "two",
            notes=(_CONSTANTS,),
        ),
        TableSpec(
            7,
            "Three modalities: linearisation experiments",
            ("Method", "Act.", "Norm."),
            _LINEARISED,
            ("pcc", "mse"),
            "three",
            (4, 3),
            notes=(_BASELINE, _THREE, "The paper has no MSE columns here; they are an addition."),
        ),
        TableSpec(
            8,
            "Three modalities: LMD variants",
            ("Method",),
            _VARIANTS,
            ("pcc", "mse"),
            "three",
            (4, 3),
            notes=(
                _CONSTANTS,
                _THREE,
                "The paper has no MSE columns here; they are an addition.",
            ),
        ),
        TableSpec(
            9,
            "Attention: LMD variants, PCC",
            ("Method",),
            _VARIANTS,
            ("pcc",),
            "attention",
            (4, 3),
            notes=(_CONSTANTS,),
        ),
        TableSpec(
            10,
            "Attention: LMD variants, MSE",
            ("Method",),
            _VARIANTS,
            ("mse",),
            "attention",
            (4, 3),
            notes=(_CONSTANTS,),
        ),
    )
}


def with_variants(spec: TableSpec, variants: Sequence[str]) -> TableSpec:
    """A table of variants with further ones below the paper's; any other table as it is.

    Args:
        variants: names; those that a table of the paper has are left out.
    """
    published = {row.name for each in TABLES.values() for row in each.rows}
    further = tuple(Row(f"lmd:{name}", (name,)) for name in variants if name not in published)
    if spec.rows != _VARIANTS or not further:
        return spec
    return replace(spec, rows=(*spec.rows, *further), notes=(*spec.notes, _FURTHER))


def refusal(spec: TableSpec, modalities: Sequence[str], attends: Callable[[], bool]) -> str | None:
    """Why a table does not apply to a model; nothing if it does.

    Args:
        attends: whether the model has attention; asked only if it matters.
    """
    wanted = {"two": 2, "three": 3}.get(spec.needs)
    if wanted is not None and len(modalities) != wanted:
        return (
            f"table {spec.number} compares {wanted} modalities, and the model has "
            f"{len(modalities)} ({', '.join(modalities)})"
        )
    if spec.needs == "attention" and not attends():
        return f"table {spec.number} is about attention, and the model has none behind its features"
    return None
