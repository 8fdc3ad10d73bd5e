"""The ``compute`` section of the YAML: precision and memory."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from lmd_cli.config.base import Section, option

Precision = Literal["float32", "bf16", "fp16"]

_UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})")
_MEMORY = "auto, or a size such as 20GB or 512MiB"


def parse_size(text: str) -> int:
    """``20GB`` (10**9 bytes each), ``512MiB`` (2**20) and the like as bytes.

    Raises:
        ValueError: it is no size, or no whole byte.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < 1:
        raise ValueError(f"expected {_MEMORY}")
    return size


class ComputeConfig(Section):
    """How numbers are computed: what changes speed, and results in their last digits or more."""

    precision: Precision = option(
        "of the encoders' convolutions and matrix products; features leave them as float32, and "
        "the decomposition is float32 in any case",
        "float32, bf16 or fp16",
        "float32",
    )
    tf32: bool = option(
        "let NVIDIA GPUs round the factors of float32 products to 10 bits, which is faster",
        "true or false",
        False,
    )
    channels_last: Literal["auto"] | bool = option(
        "memory format of the encoders, and with tf32 of all of SimpleBEV; auto: channels last on "
        "a GPU in reduced precision or TF32",
        "auto, true or false",
        "auto",
    )
    cuda_graphs: Literal["auto"] | bool = option(
        "record the work on a GPU once and replay it, which saves the time in which Python starts "
        "it, and changes no result; auto: for the built-in networks that allow it",
        "auto, true or false",
        "auto",
    )
    memory: str = option(
        "how much the evaluation may use, of the GPU's memory or of the machine's: partners go "
        "through the network in as large batches as fit; auto: most of what the GPU has free; on "
        "a CPU, batches that suit its allocator",
        _MEMORY,
        "auto",
    )

    @field_validator("memory")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        if value != "auto":
            parse_size(value)
        return value
