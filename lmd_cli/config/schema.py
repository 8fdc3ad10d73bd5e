"""The schema of a run's config; every key is documented where it is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from lmd_cli.config.base import Positive, Section, option
from lmd_cli.config.compute import ComputeConfig
from lmd_cli.config.custom import CUSTOM, CustomDataConfig, CustomModelConfig, is_custom
from lmd_cli.config.data import SYNTHETIC, DataConfig
from lmd_cli.config.models import RANDOM, CRNConfig, ModelConfig, SimpleBEVConfig
from lmd_cli.config.samples import SamplesConfig

__all__ = [
    "RANDOM",
    "SYNTHETIC",
    "CRNConfig",
    "CustomDataConfig",
    "CustomModelConfig",
    "DataConfig",
    "RunConfig",
    "SimpleBEVConfig",
    "is_custom",
]

#: The schema of each source of samples.
SOURCES: dict[str, type[Section]] = {"nuscenes": DataConfig, CUSTOM: CustomDataConfig}

#: Rules that ``report`` and ``decompose`` explain with, by default.
EXPLAIN = "identity-ratio-shapley"

Probability = Annotated[float, Field(gt=0, lt=1)]


def why_explained(variant: str) -> str:
    """Why these rules explain a run."""
    if variant != EXPLAIN:
        return "asked for"
    return (
        "the default: on the demos its parts agree better with known truth than those of the "
        "paper's rules, which tables keep"
    )


def _require_affordable(variant: str, model: ModelConfig | None) -> None:
    """Refuses ``coalitions`` of more modalities than are carried; without a model, nothing."""
    from lmd_cli.decomposition import InputError, Variant
    from lmd_cli.decomposition.coalitions import CoalitionLayout
    from lmd_cli.decomposition.variant import COALITIONS

    try:
        if model is not None and Variant.parse(variant).activation == COALITIONS:
            CoalitionLayout(tuple(model.modalities))
    except InputError as error:
        raise ValueError(str(error)) from None


def source_of(section: Any) -> str:
    """Which of :data:`SOURCES` a ``data`` section, parsed or not, belongs to."""
    return CUSTOM if is_custom(section) else "nuscenes"


SourceConfig = Annotated[
    Annotated[DataConfig, Tag("nuscenes")] | Annotated[CustomDataConfig, Tag(CUSTOM)],
    Discriminator(source_of),
]


class PerturbationConfig(Section):
    """Which samples a sensor is replaced from: sample (k + stride * m) mod N, m = 1 to count."""

    stride: int | Literal["auto"] = option(
        "distance in samples (500 in the paper); 'auto' for the largest that visits all samples",
        "a positive integer, or auto",
        "auto",
    )
    count: Positive = option("replacements for each sample", "a positive integer", 12)

    @field_validator("stride")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("expected a positive integer, or auto")
        return value


class RunConfig(Section):
    """A run: data, network, variants, protocol."""

    data: SourceConfig = option("which samples", "a mapping")
    model: ModelConfig = option("which network", "a mapping")
    variants: tuple[str, ...] = option(
        "rules BN-NORM[-ACT][-SOFTMAX] of the decomposition, evaluated side by side",
        "a list of names such as [identity-ratio]",
        ("identity-ratio",),
        min_length=1,
        strict=False,
    )
    explain: str = option(
        "rules that report and decompose explain with; tables are of `variants`",
        "a name such as identity-ratio-shapley",
        EXPLAIN,
    )
    perturbation: PerturbationConfig = option(
        "the protocol of Appendix D.4", "a mapping", default_factory=PerturbationConfig
    )
    detection: Probability | Literal["auto"] = option(
        "probability above which a vehicle counts as detected: that of the output's mean logit "
        "over the footprint, or of its peak there where the output is a heat map; auto: 0.5, for "
        "heat maps 0.3. Not recorded where it is auto",
        "auto, or a number between 0 and 1",
        "auto",
    )
    bilinear: Literal["bias", "interaction"] = option(
        "where products of different sensors are reported (attention): in the bias, as the paper "
        "does, or as a part of their own; the sensors' parts are the same",
        "bias or interaction",
        "bias",
    )
    rules: dict[str, dict[str, str]] = option(
        "other rules for some modules: a pattern of their names to fields of the variant, such as "
        "{decoder.layer3.*: {activation: taylor}}",
        "a mapping of patterns to {batch_norm, norm, activation or softmax: rule}",
        default_factory=dict,
    )
    plain_modules: tuple[str, ...] = option(
        "modules that may make constants of what carries parts, such as a head that detaches its "
        "queries: names or patterns; (root) is the network itself",
        "a list of names such as [head, decoder.*, (root)]",
        (),
        strict=False,
    )
    samples: SamplesConfig = option(
        "which of the data's samples", "a mapping", default_factory=SamplesConfig
    )
    device: str = option(
        "where to compute; auto takes a GPU if there is one",
        "auto, cpu, cuda or cuda:N",
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$",
    )
    compute: ComputeConfig = option(
        "precision and memory", "a mapping", default_factory=ComputeConfig
    )
    seed: int = option(
        "seed of random weights", "an integer from 0 to 2**31 - 1", 0, ge=0, lt=2**31
    )
    threads: Positive | None = option(
        "CPU threads of each process; none for the cores that it has to itself (on a GPU: one)",
        "a positive integer",
        None,
    )

    workers: int | None = option(
        "processes that read samples ahead; 0 to read in the main process, none for as many as "
        "pay (with a data target of your own: 0). No result depends on it: it is not recorded",
        "an integer from 0 to 256",
        None,
        ge=0,
        le=256,
        exclude=True,
    )

    _name: str = PrivateAttr("run")
    _source: Path | None = PrivateAttr(None)

    @property
    def name(self) -> str:
        """The config file's stem."""
        return self._name

    @property
    def source(self) -> Path | None:
        """The config file."""
        return self._source

    @field_validator("variants")
    @classmethod
    def _known_variants(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        from lmd_cli.decomposition import Variant

        for name in value:
            _require_affordable(name, info.data.get("model"))
        names = tuple(Variant.parse(name).name for name in value)
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise ValueError(f"{twice[0]} is listed twice")
        return names

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what earlier versions did not have, unless it is set: their runs go on."""
        values: dict[str, Any] = dump(self)
        if values.get("detection") == "auto":
            del values["detection"]
        if not self.samples.chooses:
            del values["samples"]
        return values

    @field_validator("explain")
    @classmethod
    def _known_variant(cls, value: str, info: ValidationInfo) -> str:
        from lmd_cli.decomposition import Variant

        _require_affordable(value, info.data.get("model"))
        return Variant.parse(value).name

    def with_origin(self, source: Path) -> RunConfig:
        """This config, knowing the file it came from."""
        self._name, self._source = source.stem, source
        return self
