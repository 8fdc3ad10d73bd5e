"""The built-in targets: ``simplebev``, ``crn`` and ``nuscenes``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from lmd_cli.assembly.build import Samples, build_crn_sizes, build_grid, nuscenes_samples
from lmd_cli.config.base import Section, problems_of
from lmd_cli.config.schema import RANDOM, CRNConfig, DataConfig, SimpleBEVConfig
from lmd_cli.errors import ConfigError
from lmd_cli.networks import CRN, SimpleBEV, SimpleBEVSizes

AnySection = TypeVar("AnySection", bound=Section)
#: Keys of SimpleBEV's section that say which tensors it takes.
SIZES = ("modalities", "image_size", "grid", "bounds")


def nuscenes(**options: Any) -> Samples:
    """The data target ``nuscenes``: named tensors as SimpleBEV takes them.

    Args:
        options: the keys of a ``data`` section (``dataroot`` and so on), and ``modalities``,
            ``image_size``, ``grid`` and ``bounds`` of SimpleBEV's.

    Raises:
        ConfigError: options that are not there, or of another kind.
    """
    sizes = {name: value for name, value in options.items() if name in SIZES}
    rest = {name: value for name, value in options.items() if name not in SIZES}
    where = {"version": "v1.0-trainval", "split": "val", **rest}
    data = _section(DataConfig, "data", where, SIZES)
    model = _section(SimpleBEVConfig, "data", {"checkpoint": RANDOM, **sizes})
    return nuscenes_samples(data, model)


def simplebev(section: SimpleBEVConfig | None = None, **options: Any) -> SimpleBEV:
    """The model target ``simplebev``; its options are the keys of SimpleBEV's section.

    Raises:
        ConfigError: as :func:`nuscenes`.
    """
    made = {"checkpoint": RANDOM, **options}
    model = section or _section(SimpleBEVConfig, "model", made)
    return SimpleBEV(
        model.modalities,
        grid=build_grid(model),
        encoder=model.encoder,
        radar=model.radar,
        widths=SimpleBEVSizes(**dict(model.widths)),
        instances=model.instances,
    )


def crn(section: CRNConfig | None = None, **options: Any) -> CRN:
    """The model target ``crn``; its options are the keys of CRN's section.

    Raises:
        ConfigError: as :func:`nuscenes`.
    """
    made = {"name": "crn", "checkpoint": RANDOM, **options}
    model = section or _section(CRNConfig, "model", made)
    network = CRN(build_crn_sizes(model), boundary=model.boundary)
    network.require_output(model.output)
    return network


def _section(
    schema: type[AnySection], of: str, options: Mapping[str, Any], more: Collection[str] = ()
) -> AnySection:
    """Options as a section of a config, which says what each key must be."""
    try:
        return schema(**options)
    except ValidationError as error:
        raise ConfigError(problems_of(error, schema, f"{of}.options", more)) from None
