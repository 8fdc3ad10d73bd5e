"""The demo networks: small SimpleBEVs, one for each set of sensors, and a small CRN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from lmd_cli.data import NuScenesSamples
from lmd_cli.data.crn import KeyframeSamples
from lmd_cli.geometry import Grid
from lmd_cli.networks import SimpleBEV, SimpleBEVSizes
from lmd_cli.networks.crn import CRN, CRNSizes
from training import crn_scoring, scoring
from training.conditions import Tally
from training.crn_training import CarRecipe, CarTrainer, load_key_frames
from training.frames import load_frames
from training.loop import AnyLoop
from training.training import MapRecipe, Trainer

IMAGE_SIZE = (128, 224)
GRID = Grid((100, 8, 100))
NSWEEPS = 5
WIDTHS = SimpleBEVSizes(
    latent=20,
    stem=16,
    encoder_blocks=(1, 1, 1),
    upsampling=32,
    decoder=32,
    decoder_blocks=(1, 1, 1),
)
SIZES = CRNSizes(
    image_size=(96, 256),
    depth=(2.0, 40.4, 1.6),
    extent=40.96,
    cells=64,
    key_frames=2,
    backbone=18,
    backbone_blocks=(1, 1, 1, 1),
    backbone_width=16,
    image_neck=16,
    depth_net=24,
    context=16,
    pillar=(16, 16),
    radar_slots=192,
    radar_widths=(16, 24, 32),
    radar_layers=(1, 1, 1),
    radar_neck=16,
    embed=32,
    layers=2,
    heads=4,
    points=4,
    trunk=16,
    trunk_blocks=(1, 1, 1),
    head_neck=16,
    head=16,
    tasks=(("car",),),
)


@dataclass(frozen=True)
class Demo(ABC):
    """One demo network.

    Attributes:
        key: names it on the command line and in its files.
        modalities: its sensors, in the order in which it joins them.
    """

    key: str
    modalities: tuple[str, ...]

    #: What it is, its loss, its main score and the scores' definitions, in words.
    network, loss, metric, definitions = "", "", "", ""
    epochs = MapRecipe.epochs

    @property
    def name(self) -> str:
        """Stem of its files."""
        return f"demo_{self.key}"

    @property
    def command(self) -> str:
        """How to train it."""
        option = "" if self.key == DEFAULT else f" --model {self.key}"
        return f"python scripts/train_demo.py{option}"

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, untrained."""

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """The configuration as a YAML config spells it."""

    @abstractmethod
    def trainer(self, roots: Sequence[Path], epochs: int, seed: int, state: Path) -> AnyLoop:
        """A new network and what trains it on the ``mini_train`` of synthetic roots."""

    @abstractmethod
    def evaluate(self, network: Any, root: Path) -> Mapping[str, Tally]:
        """Scores on a synthetic root's ``mini_val``, by condition."""


class MapDemo(Demo):
    """A small SimpleBEV."""

    network, metric = "SimpleBEV", "vehicle IoU"
    loss = "upstream's: cross-entropy inside `valid`, centre and offset, learnt weights"
    definitions = scoring.DEFINITIONS

    def build(self) -> SimpleBEV:
        """The network, untrained."""
        return SimpleBEV(
            self.modalities, grid=GRID, encoder="res50", radar="metaradar", widths=WIDTHS
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

    def trainer(self, roots: Sequence[Path], epochs: int, seed: int, state: Path) -> Trainer:
        """A new network and what trains it on the ``mini_train`` of synthetic roots."""
        data = [self.samples(root, "mini_train") for root in roots]
        recipe = MapRecipe(epochs=epochs, seed=seed)
        return Trainer(self.build(), *load_frames(data), recipe, state)

    def evaluate(self, network: Any, root: Path) -> Mapping[str, Tally]:
        """Scores on a synthetic root's ``mini_val``, by condition."""
        return scoring.evaluate(network, self.samples(root, "mini_val"))

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


class CarDemo(Demo):
    """A small CRN."""

    network, metric = "CRN", "car AP at 2 m"
    loss = (
        "CRN's: Gaussian focal loss of the heat map, absolute errors of the boxes; and "
        "cross-entropy of the depth probabilities"
    )
    definitions = crn_scoring.DEFINITIONS

    def build(self) -> CRN:
        """The network, untrained."""
        return CRN(SIZES)

    def describe(self) -> dict[str, object]:
        """The configuration as a YAML config spells it."""
        plain = CRNSizes.published(18)
        own = {
            field.name: getattr(SIZES, field.name)
            for field in fields(SIZES)
            if getattr(SIZES, field.name) != getattr(plain, field.name)
        }
        top = {"image_size": list(own.pop("image_size")), "key_frames": own.pop("key_frames")}
        return {"backbone": "r18", **top, "sizes": own}

    def trainer(self, roots: Sequence[Path], epochs: int, seed: int, state: Path) -> CarTrainer:
        """A new network and what trains it on the ``mini_train`` of synthetic roots."""
        data = [self.samples(root, "mini_train") for root in roots]
        frames = [frame for split in data for frame in load_key_frames(split, SIZES)]
        recipe = CarRecipe(epochs=epochs, seed=seed)
        return CarTrainer(self.build(), frames, recipe, state)

    def evaluate(self, network: Any, root: Path) -> Mapping[str, Tally]:
        """Scores on a synthetic root's ``mini_val``, by condition."""
        return crn_scoring.evaluate(network, self.samples(root, "mini_val"))

    def samples(self, root: Path, split: str) -> KeyframeSamples:
        """A split of a synthetic root, as this network takes it."""
        return KeyframeSamples(
            root,
            "v1.0-mini",
            split,
            image_size=SIZES.image_size,
            key_frames=SIZES.key_frames,
            depth_bound=SIZES.depth[1],
            radar_slots=SIZES.radar_slots,
            extent=SIZES.extent,
            cells=SIZES.cells,
        )


DEFAULT = "radar_cam"
DEMOS: dict[str, Demo] = {
    demo.key: demo
    for demo in (
        MapDemo(DEFAULT, ("camera", "radar")),
        MapDemo("lidar_cam", ("camera", "lidar")),
        MapDemo("radar_lidar_cam", ("camera", "radar", "lidar")),
        CarDemo("crn", ("camera", "radar")),
    )
}
