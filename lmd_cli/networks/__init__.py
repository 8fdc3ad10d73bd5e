"""Fusion networks in plain PyTorch, split where their sensors first meet."""

from lmd_cli.config.sizes import SimpleBEVSizes
from lmd_cli.networks.checkpoints.loading import load_checkpoint
from lmd_cli.networks.crn import CRN, CRNSizes
from lmd_cli.networks.detections import Detections
from lmd_cli.networks.random_weights import random_weights
from lmd_cli.networks.simplebev.network import MODALITIES, OUTPUTS, SimpleBEV

__all__ = [
    "CRN",
    "MODALITIES",
    "OUTPUTS",
    "CRNSizes",
    "Detections",
    "SimpleBEV",
    "SimpleBEVSizes",
    "load_checkpoint",
    "random_weights",
]
