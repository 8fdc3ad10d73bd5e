"""Images that are too much, or not what the calibration is for: refused before they are decoded."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from lmd_cli.data.nuscenes.images import load_image
from lmd_cli.errors import DataError

SIZE = (32, 56)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b""))


def refusal(path: Path, **how: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_image(path, SIZE, token="the-sample", **how)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("(needed by sample the-sample)")
    return str(caught.value)


@pytest.mark.parametrize("size", [(8000, 8000), (12_000, 12_000), (65_535, 65_535), (1, 2**31 - 1)])
@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header(
    tmp_path: Path, size: tuple[int, int], limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # as some libraries do
    path = tmp_path / "a.jpg"
    path.write_bytes(png_header(*size))
    start = time.monotonic()
    assert "expected at most 33177600" in refusal(path)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_refused(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((90, 160, channels), 3000, np.uint16))
    assert "more than 8 bits a channel" in refusal(path)


@pytest.mark.parametrize("kind", [b"P6", b"P5"])
def test_sixteen_bits_of_ppm_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(kind + b" 160 90 65535\n" + bytes(160 * 90 * 6))
    assert "more than 8 bits a channel" in refusal(path)
    path.write_bytes(kind + b" 160 90 255\n" + bytes(160 * 90 * 3))
    assert load_image(path, SIZE).shape == (3, *SIZE)


@pytest.mark.parametrize("suffix", ["bmp", "tif", "ppm"])
def test_wide_images_of_eight_bits_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (1600, 16)).save(path)
    assert load_image(path, SIZE).shape == (3, *SIZE)


#: EXIF data with one entry: nothing behind it, a chain without an end, beyond the file, a text.
ODD_EXIF = (
    b"II*\0\x08\0\0\0\x05\0\x12\x01",
    b"II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0\0\0\x01\0\0\0",
    b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0",
    b"II*\0\xff\xff\xff\x7f",
    b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x05\0\0\0\x1a\0\0\0\0\0\0\0abcd\0",
    b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0",
)


@pytest.mark.parametrize("exif", ODD_EXIF)
@pytest.mark.filterwarnings("error")
def test_exif_data_that_say_nothing_are_passed_over(tmp_path: Path, exif: bytes) -> None:
    path, data = tmp_path / "a.jpg", b"Exif\0\0" + exif
    Image.new("RGB", (160, 90), "red").save(path)
    jpeg = path.read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    path.write_bytes(jpeg[:2] + segment + jpeg[2:])
    assert load_image(path, SIZE).shape == (3, *SIZE)


def test_what_cannot_be_opened_is_not_called_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.symlink_to(path)
    assert "cannot be read: Too many levels of symbolic links" in refusal(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("turned", [1, 3, 6])
def test_a_turned_image_is_refused(tmp_path: Path, suffix: str, turned: int) -> None:
    exif, path = Image.Exif(), tmp_path / f"a.{suffix}"
    exif[0x0112] = turned
    Image.new("RGB", (160, 90), "red").save(path, exif=exif)
    if turned == 1:
        assert load_image(path, SIZE).shape == (3, *SIZE)
    else:
        assert f"it is turned (orientation {turned})" in refusal(path)


@pytest.mark.parametrize(
    ("size", "right"),
    [
        *[((1600, 900), True), ((800, 450), True), ((160, 90), True), ((533, 300), True)],
        *[((900, 1600), False), ((1600, 903), False), ((1, 1), True), ((160, 100), False)],
    ],
)
def test_a_smaller_copy_has_the_recorded_shape(
    tmp_path: Path, size: tuple[int, int], right: bool
) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", size).save(path)
    if right:
        load_image(path, SIZE, recorded=(1600, 900))
    else:
        said = f"{size[0]} x {size[1]} pixels, where the tables say 1600 x 900"
        assert said in refusal(path, recorded=(1600, 900))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_other_modes_are_converted(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (160, 90)).save(path)
    assert load_image(path, SIZE).shape == (3, *SIZE)


def test_formats_whose_decoders_run_programs_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (160, 90)).save(path, format="EPS")
    assert "not an image of a format that is read (JPEG, PNG, BMP, PPM, " in refusal(path)


def test_what_pillow_logs_of_a_damaged_file_is_not_shown(tmp_path: Path, capfd, caplog) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (160, 90)).save(path)
    samples = struct.pack("<HHIHH", 277, 3, 1, 3, 0)  # the entry: samples per pixel
    content = path.read_bytes()
    assert samples in content
    path.write_bytes(content.replace(samples, struct.pack("<HHIHH", 277, 3, 1, 2048, 0)))
    assert "not an image" in refusal(path)
    assert (capfd.readouterr().err, caplog.text) == ("", "")
