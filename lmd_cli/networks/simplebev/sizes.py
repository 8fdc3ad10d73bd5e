"""How wide and deep SimpleBEV is: the published numbers, which a demo makes smaller."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from lmd_cli.errors import ConfigError

Encoder = Literal["res50", "res101"]

#: Residual blocks in the encoder's three stages (He et al. 2016, table 1).
ENCODER_BLOCKS: dict[str, tuple[int, int, int]] = {"res50": (3, 4, 6), "res101": (3, 4, 23)}


@dataclass(frozen=True)
class SimpleBEVWidths:
    """Channels and block counts; every layer type stays, whatever the numbers.

    Attributes:
        latent: channels of the camera features, after the compressor and in the heads.
        stem: channels of the image encoder's first convolution; its stages end at 4, 8 and 16
            times as many.
        encoder_blocks: residual blocks in the encoder's three stages; ``None`` for those of the
            encoder's name.
        upsampling: channels of the encoder's upsampling block.
        decoder: channels of the decoder's first stage; the others have 2 and 4 times as many.
        decoder_blocks: residual blocks in the decoder's three stages.
    """

    latent: int = 128
    stem: int = 64
    encoder_blocks: tuple[int, int, int] | None = None
    upsampling: int = 512
    decoder: int = 64
    decoder_blocks: tuple[int, int, int] = (2, 2, 2)

    def __post_init__(self) -> None:
        """Take lists for tuples (YAML has no tuples) and refuse what cannot be built."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
            self._check(field.name)

    def _check(self, name: str) -> None:
        value = getattr(self, name)
        if value is None and name == "encoder_blocks":
            return
        counts = value if isinstance(value, tuple) else (value,)
        expected = 3 if name.endswith("blocks") else 1
        if len(counts) != expected or not all(type(n) is int and n > 0 for n in counts):
            kind = "three positive integers" if expected == 3 else "a positive integer"
            raise ConfigError(f"widths.{name} must be {kind}, not {value!r}")

    def blocks_of(self, encoder: Encoder) -> tuple[int, int, int]:
        """Residual blocks in the three stages of ``encoder``."""
        return self.encoder_blocks or ENCODER_BLOCKS[encoder]
