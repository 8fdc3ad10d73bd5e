"""``lmd decompose``: one sample's prediction in parts, as arrays, tables and a picture."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.decomposition import OperationRecord
from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.decomposed_sample import SampleDecomposition
from lmd_cli.report.figures.axes import Format
from lmd_cli.report.figures.bev import grid_figure
from lmd_cli.report.figures.generic import generic_figure, view_of
from lmd_cli.report.figures.layers import layers_figure
from lmd_cli.report.figures.scene import note_of, scene_of, title_of
from lmd_cli.report.figures.styles import STYLES, Style
from lmd_cli.report.notebook import drawing
from lmd_cli.report.words import bias_warning
from lmd_cli.results.write_once import write_results
from lmd_cli.runtime.files import csv_lines
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.ready import make_ready


def decompose_sample(
    config: RunConfig | str | Path,
    token: str | None = None,
    *,
    variant: str | None = None,
    progress: Progress | None = None,
) -> SampleDecomposition:
    """Decomposes one sample's prediction.

    Args:
        config: data, network, device; or the YAML's name, as
            :func:`~lmd_cli.config.loading.load_config` takes it.
        token: sample token; the split's first sample if none.
        variant: rules; the config's ``explain`` if none.
        progress: shows the making of the synthetic root.

    Raises:
        LmdError: what :mod:`lmd_cli.assembly.build` raises, an unknown token, or damaged files.
    """
    known = config if isinstance(config, RunConfig) else load_config(config)
    ready = make_ready(known, variant, progress)
    return ready.decompose(0 if token is None else ready.dataset.index_of(token))


def decompose_several(
    config: RunConfig, wanted: Sequence[str], *, progress: Progress | None = None
) -> list[SampleDecomposition]:
    """Decomposes several samples with one network.

    Args:
        wanted: tokens; or one number, for the first samples of the split.

    Raises:
        LmdError: as :func:`decompose_sample`; or a number that the split does not have.
    """
    ready = make_ready(config, None, progress)
    tokens, dataset = [token.strip() for token in wanted], ready.dataset
    if len(tokens) == 1 and tokens[0].isdigit() and tokens[0] not in dataset.tokens:
        count = int(tokens[0])
        if not 1 <= count <= len(dataset):
            raise ConfigError(f"{count} samples asked for; the split has {len(dataset)}")
        return [ready.decompose(index) for index in range(count)]
    return [ready.decompose(index) for index in map(dataset.index_of, tokens)]


LAYER_FIELDS = ("order", "module", "operation", "total_norm", "residual", "parts_residual")


@dataclass(frozen=True)
class Pictures:
    """Which figures to draw: one for each style and form."""

    styles: Sequence[Style] = STYLES[:1]
    forms: Sequence[Format] = ("png",)

    @classmethod
    def named(cls, styles: Sequence[str], forms: Sequence[str]) -> Pictures:
        """From plain strings, each once.

        Raises:
            ValueError: one that does not exist.
        """
        known: tuple[Format, ...] = get_args(Format)
        for name, choices in (*((s, STYLES) for s in styles), *((f, known) for f in forms)):
            if name not in choices:
                raise ValueError(f"{name!r} is not one of {', '.join(choices)}")
        return cls([s for s in STYLES if s in styles], [f for f in known if f in forms])


def write_sample(
    split: SampleDecomposition,
    folder: Path,
    pictures: Pictures | None = None,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Writes arrays, tables, figures, and where they come from.

    ``parts.npz``, ``layers.csv`` and ``layers.png``, ``decomposition.png`` (the style signed;
    ``decomposition_positive.png`` and so on for the others) and ``decomposition.json``. All is
    computed before the first file is replaced.

    Args:
        overwrite: also the results of another request.

    Returns:
        the files.

    Raises:
        ResultsError: the folder holds the results of another request.
        RunError: the disk is full or the folder cannot be written.
    """
    pictures = pictures or Pictures()
    contents = {
        "parts.npz": parts_npz(split),
        "layers.csv": layers_csv(split.result.operations, list(split.parts)),
    }
    for form in pictures.forms:
        contents[f"layers.{form}"] = layers_figure(
            split.result.operations, title_of(split), note_of(split), list(split.parts), form
        )
    contents |= _figures("decomposition", pictures, drawing(split))
    contents["decomposition.json"] = json.dumps(provenance(split), indent=2).encode() + b"\n"
    return write_results(
        folder, "decomposition.json", request_of(split), contents, overwrite=overwrite
    )


def write_grid(
    splits: Sequence[SampleDecomposition],
    folder: Path,
    pictures: Pictures | None = None,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Writes ``grid.png`` (``grid_positive.png``, ...), several samples in one figure, and
    ``grid.json``.

    Raises:
        ResultsError: the folder holds the results of another request.
        RunError: the disk is full or the folder cannot be written.
    """
    if splits[0].on_ground:
        draw = partial(grid_figure, [scene_of(split) for split in splits])
    else:
        draw = partial(generic_figure, [view_of(split) for split in splits])
    request = {
        **request_of(splits[0]),
        "sample_token": [split.sample.token for split in splits],
        "scene": [split.sample.scene for split in splits],
    }
    contents = _figures("grid", pictures or Pictures(), draw)
    contents["grid.json"] = json.dumps(request, indent=2).encode() + b"\n"
    return write_results(folder, "grid.json", request, contents, overwrite=overwrite)


def _figures(
    name: str, pictures: Pictures, draw: Callable[[Style, Format], bytes]
) -> dict[str, bytes]:
    """One file for each style and form; the default style goes without a suffix."""
    return {
        f"{name}{'' if style == STYLES[0] else f'_{style}'}.{form}": draw(style, form)
        for style in pictures.styles
        for form in pictures.forms
    }


def parts_npz(split: SampleDecomposition) -> bytes:
    """``total``, one array per part and ``ground_truth``, each (Z, X) float32; of a network of the
    user's own the whole output, without the batch's dimension."""
    if split.on_ground:
        arrays = {"total": split.total, **split.parts}
    else:
        whole = {"total": split.result.total, **split.result.parts, BIAS: split.result.bias}
        if INTERACTION in split.parts:
            whole[INTERACTION] = split.result.interaction
        arrays = {name: value[0].cpu() for name, value in whole.items()}
    if split.ground_truth is not None:
        arrays["ground_truth"] = split.ground_truth
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: value.numpy() for name, value in arrays.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


def layers_csv(operations: list[OperationRecord], parts: list[str]) -> bytes:
    """One row for each operation: conservation, and each part's share of the L2 norms.

    ``share_interaction`` is there if different modalities were multiplied anywhere, whichever
    part it is reported in.
    """
    multiplied = any(INTERACTION in record.shares for record in operations)
    names = [*parts, INTERACTION] if multiplied and INTERACTION not in parts else parts
    header = (*LAYER_FIELDS, *(f"share_{name}" for name in names))
    rows = [
        (*(getattr(r, name) for name in LAYER_FIELDS), *(r.shares.get(p, 0.0) for p in names))
        for r in operations
    ]
    return csv_lines([header, *rows])


def request_of(split: SampleDecomposition) -> dict[str, Any]:
    """What was asked, in plain values."""
    return {
        "sample_token": split.sample.token,
        "scene": split.sample.scene,
        "variant": split.variant,
        "checkpoint_sha256": split.built.sha256,
        "random_weights": split.built.random,
        "config": split.config.model_dump(mode="json"),
    }


def provenance(split: SampleDecomposition) -> dict[str, Any]:
    """Where the numbers come from, in plain values."""
    return {
        **request_of(split),
        "checkpoint": split.built.checkpoint,
        "residual": split.residual,
        "shares": split.shares(),
    }


def summary(split: SampleDecomposition) -> list[str]:
    """What the command prints: sample, weights, conservation, shares."""
    shares = split.shares()
    largest = max(record.residual for record in split.result.operations)
    return [
        f"sample {split.sample.name}, rules {split.variant}",
        f"weights: {split.built.checkpoint}"
        + ("; the maps mean nothing" if split.built.random else ""),
        f"residual {split.residual:.1e} (total against the sum of the parts; largest at any of "
        f"{len(split.result.operations)} operations: {largest:.1e})",
        "shares of the prediction: "
        + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()),
        *bias_warning([shares[BIAS]]),
    ]
