"""Opens image files, and checks their headers before anything is decoded."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

#: Formats that are read: no others' decoders are started, some of which run programs.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
#: Pixels of an image, at most: as many as 8K video has. Pillow's own limit is anybody's to change.
MOST_PIXELS = 7680 * 4320
_ORIENTATION = 0x0112
#: Values of the EXIF entry for images that are turned or mirrored; any other says nothing.
_TURNED = range(2, 9)


class PictureError(Exception):
    """What is wrong with an image that could be decoded, or is too large for it."""


def open_picture(path: Path, recorded: tuple[int, int] | None = None) -> Image.Image:
    """An image, not yet decoded.

    Args:
        path: the file.
        recorded: (width, height) that the tables give it; a smaller copy has the same shape.

    Raises:
        PictureError: it is too large, of more than 8 bits, turned by its EXIF data, or of another
            shape than recorded.
        Exception: of many kinds, if it is damaged or no image.
    """
    with without_warnings():
        try:
            image = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise PictureError(f"{error}; expected at most {MOST_PIXELS}") from None
        try:
            _require_usable(image, recorded)
        except BaseException:
            image.close()
            raise
    return image


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps what Pillow says out of the terminal.

    It warns of large images (the limit is ours) and of EXIF data that cannot be read (only the
    orientation matters, and without one the image is upright), and logs damage of TIFF files.
    """
    logger = logging.getLogger("PIL")
    before, logger.propagate = logger.propagate, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = before


logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors go to the terminal


def _require_usable(image: Image.Image, recorded: tuple[int, int] | None) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise PictureError(f"{width} x {height} pixels; expected at most {MOST_PIXELS}")
    raw = [str(tile[3]) for tile in getattr(image, "tile", ())]
    if image.mode[0] in "IF" or any("16" in mode for mode in raw) or _is_deep_ppm(image):
        raise PictureError(
            f"more than 8 bits a channel ({', '.join([image.mode, *raw[:1]])}); expected 8: "
            "scale its values to 0 to 255 and save it as such"
        )
    turned = image.getexif().get(_ORIENTATION) if _has_exif(image) else None
    if turned in _TURNED:
        raise PictureError(
            f"its EXIF data say that it is turned (orientation {turned}), but calibrations are "
            "for pixels as they lie in the file: save it upright, without that entry"
        )
    if recorded is not None and not _same_shape(image.size, recorded):
        raise PictureError(
            f"{width} x {height} pixels, where the tables say {recorded[0]} x {recorded[1]}: "
            "the calibration is for another shape"
        )


def _is_deep_ppm(image: Image.Image) -> bool:
    """Whether the largest value takes more than 8 bits, which Pillow would scale away."""
    tiles = getattr(image, "tile", ()) if image.format == "PPM" else ()
    largest = [tile[3][-1] for tile in tiles if isinstance(tile[3], tuple)]
    return any(isinstance(value, int) and value > 255 for value in largest)


def _has_exif(image: Image.Image) -> bool:
    """Whether EXIF data can be had without decoding."""
    return image.format in ("JPEG", "TIFF") or "exif" in image.info


def _same_shape(size: tuple[int, int], recorded: tuple[int, int]) -> bool:
    """Whether one is a scaled copy of the other, to a pixel."""
    (width, height), (full_width, full_height) = size, recorded
    return abs(height - width * full_height / full_width) <= max(1.0, full_height / full_width)
