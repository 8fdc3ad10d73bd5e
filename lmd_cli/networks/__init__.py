"""Fusion networks, split where their sensors first meet. Plain PyTorch."""

from lmd_cli.networks.checkpoints.loading import load_checkpoint
from lmd_cli.networks.crn import CRN, CRNShape
from lmd_cli.networks.seeded import random_weights
from lmd_cli.networks.simplebev import MODALITIES, OUTPUTS, SimpleBEV
from lmd_cli.networks.widths import SimpleBEVWidths

__all__ = [
    "CRN",
    "MODALITIES",
    "OUTPUTS",
    "CRNShape",
    "SimpleBEV",
    "SimpleBEVWidths",
    "load_checkpoint",
    "random_weights",
]
