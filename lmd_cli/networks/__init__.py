"""Fusion networks, split where their sensors first meet. Plain PyTorch."""

from lmd_cli.networks.checkpoints.loading import load_checkpoint
from lmd_cli.networks.crn import CRN, CRNShape
from lmd_cli.networks.random_weights import random_weights
from lmd_cli.networks.simplebev.network import MODALITIES, OUTPUTS, SimpleBEV
from lmd_cli.networks.simplebev.sizes import SimpleBEVWidths

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
