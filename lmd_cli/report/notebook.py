"""Results in a notebook: fragments of HTML with small maps, pictures, frames.

Registered for the engine's results by the package's root (:mod:`.decomposition.presentation`).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, singledispatch
from html import escape
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from PIL import Image

from lmd_cli.decomposition import Decomposition, InputError, Parts
from lmd_cli.decomposition.pytrees import named_leaves
from lmd_cli.decomposition.result import DecomposedTensor, decomposed_leaves
from lmd_cli.evaluation.decomposed_sample import SampleDecomposition, shown
from lmd_cli.report.figures.axes import Format
from lmd_cli.report.figures.bev import decomposition_figure
from lmd_cli.report.figures.generic import PREDICTION, View, generic_figure, view_of
from lmd_cli.report.figures.scene import scene_of, title_of
from lmd_cli.report.figures.styles import STYLES, Map, MapStyle, Style, make_map_style, part_title

#: Pixels: height of a small map, and width of a picture on the page (files have twice as many).
SMALL, WIDE = 110, 975
#: As many tensors of an output have small maps.
TENSORS = 3


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure that a notebook shows and :meth:`save` writes.

    Attributes:
        draw: the figure's bytes in a format.
    """

    draw: Callable[[Format], bytes]

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.draw("png"), {"width": WIDE}

    def save(self, path: str | Path) -> Path:
        """Writes a PNG, SVG or PDF file, by the name's suffix.

        Raises:
            InputError: another suffix.
        """
        path = Path(path)
        form = next((f for f in get_args(Format) if path.suffix.lower() == f".{f}"), None)
        if form is None:
            raise InputError(f"{path}: a picture's name ends in .png, .svg or .pdf")
        path.write_bytes(self.draw(form))
        return path


# -- pictures -----------------------------------------------------------------------------


@singledispatch
def plot(
    result: Any, *, style: Style | None = None, sample: int = 0, channel: int = 0, title: str = ""
) -> Picture:
    """A picture of a prediction and its parts.

    Args:
        result: a decomposition (or one layer of it) whose output is one tensor (B, C, H, W),
            (B, C, D, H, W), (B, C) or (B, N, C); or what :func:`lmd_cli.sample` gives.
        style: ``signed`` (if none; one scale for all maps), ``positive`` or ``sigmoid``. A sample's
            is ``positive`` if none, as the paper's figure 2.
        sample: which of the batch.
        channel: which of the C.
        title: the first line.

    Raises:
        InputError: several tensors, no such sample or channel, an unknown style.
    """
    raise InputError(f"a {type(result).__name__} cannot be drawn; expected a decomposition")


@plot.register
def _(
    result: Parts,
    *,
    style: Style | None = None,
    sample: int = 0,
    channel: int = 0,
    title: str = "",
) -> Picture:
    named = list(_tensors(result))
    if len(named) != 1:
        listed = ", ".join(name for name, _ in named)
        raise InputError(f"the output has several tensors ({listed}): index the result first")
    maps = _maps(*named[0], result, sample, channel)
    view = View(maps.pop(PREDICTION), maps, None, title or _title(result))
    return Picture(partial(generic_figure, [view], _known(style or STYLES[0])))


@plot.register
def _(result: SampleDecomposition, *, style: Style | None = None) -> Picture:
    return Picture(partial(drawing(result), _known(style or STYLES[0])))


def drawing(split: SampleDecomposition) -> Callable[[Style, Format], bytes]:
    """The figure of a sample in a style and a format."""
    if split.on_ground:
        return partial(decomposition_figure, scene_of(split))
    return partial(generic_figure, [view_of(split)])


def _known(style: Style) -> Style:
    if style not in STYLES:
        raise InputError(f"style {style!r} is not one of {', '.join(STYLES)}")
    return style


def _title(result: Parts) -> str:
    return (
        f"rules {result.variant}"
        if isinstance(result, Decomposition)
        else "Prediction and its parts"
    )


def _tensors(result: Parts) -> Iterator[tuple[str, DecomposedTensor]]:
    """The tensors with parts and their places."""
    named = named_leaves(result.tree)
    return ((name, leaf) for name, leaf in named if isinstance(leaf, DecomposedTensor))


def _maps(
    name: str, tensor: DecomposedTensor, result: Parts, sample: int, channel: int
) -> dict[str, Map]:
    """The prediction and its parts at one sample and channel: (H, W) or (N,) each."""
    shape = tensor.total.shape
    _require_index("sample", sample, shape, 0)
    _require_index("channel", channel, shape, {3: 2, 4: 1, 5: 1}.get(len(shape)))
    one = Parts(tensor, result.layout, result.merged)
    trees = {PREDICTION: one.total, **one.named}
    return {
        part: shown(value[sample : sample + 1], channel, name or "of the function")
        .detach()
        .float()
        .cpu()
        .numpy()
        for part, value in trees.items()
    }


def _require_index(what: str, index: int, shape: Sequence[int], axis: int | None) -> None:
    if axis is not None and len(shape) > axis and not 0 <= index < shape[axis]:
        raise InputError(f"{what} {index}: an output of shape {tuple(shape)} has {shape[axis]}")


# -- HTML ---------------------------------------------------------------------------------


@singledispatch
def html(result: Any) -> str:
    """A fragment: what it is, and each part's share and small map on one scale."""
    raise InputError(f"a {type(result).__name__} has no HTML; expected a decomposition")


@html.register
def _(result: Parts) -> str:
    first, *_, last = repr(result).splitlines()
    rows = [_row(_maps(name, tensor, result, 0, 0)) for name, tensor in _drawn(result)]
    return _fragment(f"{first},{last}".replace(",  ", ", "), result.shares(), rows)


@html.register
def _(result: SampleDecomposition) -> str:
    maps = {PREDICTION: result.total.numpy()}
    maps |= {name: part.numpy() for name, part in result.parts.items()}
    rows = [_row(maps)] if result.total.ndim == 2 else []
    return _fragment(f"{title_of(result)}, residual {result.residual:.1e}", result.shares(), rows)


def _drawn(result: Parts) -> list[tuple[str, DecomposedTensor]]:
    """The first tensors that are maps."""
    named = [
        (name, t) for name, t in _tensors(result) if t.total.ndim in (4, 5) and t.total.numel()
    ]
    return named[:TENSORS]


def _fragment(title: str, shares: Mapping[str, float], rows: list[dict[str, str]]) -> str:
    head = "".join(f"<th>{escape(part_title(name))}</th>" for name in (PREDICTION, *shares))
    share = "".join(f"<td>{value:.1%}</td>" for value in shares.values())
    maps = "".join(
        "<tr>" + "".join(f"<td>{images.get(n, '')}</td>" for n in (PREDICTION, *shares)) + "</tr>"
        for images in rows
    )
    return (
        f"<div><div>{escape(title)}</div><table><thead><tr>{head}</tr></thead><tbody>"
        f"<tr><td>share of the L2 norms</td>{share}</tr>{maps}</tbody></table></div>"
    )


def _row(maps: Mapping[str, Map]) -> dict[str, str]:
    """Small images by part, teal above 0 and brown below, on one scale."""
    style = make_map_style("signed", list(maps.values()))
    return {name: _image(values, style) for name, values in maps.items()}


def _image(values: Map, style: MapStyle) -> str:
    height = (values - style.low) / (style.high - style.low)
    pixels = np.asarray(style.colours("")(height, bytes=True))[..., :3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    width = max(1, round(SMALL * image.width / image.height))
    buffer = io.BytesIO()
    image.resize((width, SMALL), Image.Resampling.NEAREST).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img height="{SMALL}" src="data:image/png;base64,{data}">'


# -- frames -------------------------------------------------------------------------------


def layers_frame(result: Decomposition) -> pd.DataFrame:
    """See :meth:`lmd_cli.Decomposition.layers_frame`."""
    rows = [
        {
            "layer": name,
            "shape": " ".join(str(tuple(t.total.shape)) for t in decomposed_leaves(layer.tree)),
            "residual": layer.residual,
            **{f"share_{part}": share for part, share in layer.shares().items()},
        }
        for name, layer in result.layers.items()
    ]
    shares = [f"share_{part}" for part in result.named]
    return pd.DataFrame(rows, columns=["layer", "shape", "residual", *shares])
