"""The demo networks: small SimpleBEVs, one for each set of sensors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from lmd_cli.data import NuScenesSamples
from lmd_cli.geometry import Grid
from lmd_cli.networks import SimpleBEV, SimpleBEVWidths

IMAGE_SIZE = (128, 224)
GRID = Grid((100, 8, 100))
NSWEEPS = 5
WIDTHS = SimpleBEVWidths(
    latent=20,
    stem=16,
    encoder_blocks=(1, 1, 1),
    upsampling=32,
    decoder=32,
    decoder_blocks=(1, 1, 1),
)


@dataclass(frozen=True)
class Demo:
    """One demo network.

    Attributes:
        key: names it on the command line and in its files.
        modalities: its sensors, in the order of the fusion layer.
    """

    key: str
    modalities: tuple[str, ...]

    @property
    def name(self) -> str:
        """Stem of its files."""
        return f"demo_{self.key}"

    @property
    def command(self) -> str:
        """How to train it."""
        option = "" if self == DEMOS[DEFAULT] else f" --model {self.key}"
        return f"python scripts/train_demo.py{option}"

    def build(self) -> SimpleBEV:
        """The network, untrained."""
        return SimpleBEV(
            self.modalities, grid=GRID, encoder="res50", radar="metaradar", widths=WIDTHS
        )

    def samples(self, root: Path, split: str) -> NuScenesSamples:
        """A split of a synthetic root, as this network takes it."""
        return NuScenesSamples(
            root,
            "v1.0-mini",
            split,
            modalities=self.modalities,
            nsweeps=NSWEEPS,
            image_size=IMAGE_SIZE,
            grid=GRID,
        )

    def describe(self) -> dict[str, object]:
        """The configuration as a YAML config spells it."""
        radar = {"radar": "metaradar"} if "radar" in self.modalities else {}
        return {
            "modalities": list(self.modalities),
            "encoder": "res50",
            **radar,
            "image_size": list(IMAGE_SIZE),
            "grid": list(GRID.size),
            "nsweeps": NSWEEPS,
            "widths": asdict(WIDTHS),
        }


DEFAULT = "radar_cam"
DEMOS = {
    demo.key: demo
    for demo in (
        Demo(DEFAULT, ("camera", "radar")),
        Demo("lidar_cam", ("camera", "lidar")),
        Demo("radar_lidar_cam", ("camera", "radar", "lidar")),
    )
}
