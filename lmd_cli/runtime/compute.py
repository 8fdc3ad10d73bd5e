"""Precision, memory format and batch sizes: resolved once for a run, and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

import torch
from torch import nn

from lmd_cli.config.compute import ComputeConfig, Precision, parse_size
from lmd_cli.errors import ConfigError

#: What a pass holds at its peak, over what goes in: four times it in SimpleBEV's plain decoder; the
#: linearised pass is held to this bound by tests/runtime/test_compute.py.
PASS_FACTOR = 8
#: Share of the memory budget that is for passes; the rest is for the weights, the encoder, the kept
#: slopes and the encodings of a sample's partners.
PASS_SHARE = 0.5
#: Share of a GPU's free memory that ``auto`` takes.
FREE_SHARE = 0.8

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
HALF = tuple(TYPES.values())


@dataclass(frozen=True)
class Chunks:
    """How much goes through a network at once.

    The defaults are a CPU's: larger passes are no faster there, and take more memory.

    Attributes:
        linear: bytes of partners behind the fusion layer in one pass of the linear network.
        parts: bytes of features of the partners that go along as further parts.
        head: bytes of partners that are kept before a head, to go through it as one linear map.
    """

    linear: int = 48 * 2**20
    parts: int = 2**30
    head: int = 2**28


CPU_CHUNKS = Chunks()


@dataclass(frozen=True)
class Compute:
    """The ``compute`` section with nothing left to ``auto``.

    Attributes:
        precision: of the encoders.
        tf32: whether float32 products may be rounded on a GPU.
        channels_last: memory format of the encoders; with TF32, which is fast in this format alone,
            of a network with a linear fusion layer as a whole.
        cuda_graphs: whether work on the GPU is recorded and replayed.
        chunks: batch sizes; they change results in the last digits.
    """

    precision: Precision = "float32"
    tf32: bool = False
    channels_last: bool = False
    cuda_graphs: bool = False
    chunks: Chunks = CPU_CHUNKS

    def record(self) -> dict[str, Any]:
        """For ``run.json``: what the config does not say by itself."""
        return {"channels_last": self.channels_last, "chunk_bytes": asdict(self.chunks)}

    def apply(self, network: Any) -> None:
        """Sets this process's switches and the memory format of the network's encoders.

        Raises:
            ConfigError: channels last, and the network does not say which modules are encoders;
                CUDA graphs, and the network has no linear fusion layer.
        """
        set_switches(self.tf32)
        if self.cuda_graphs:
            _record_graphs(network)
        if self.channels_last:
            whole = self.tf32 and _has_fusion_layer(network)
            for module in (*_encoders(network), *([network] if whole else [])):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def set_switches(tf32: bool) -> None:
    """Sets this process's switches for NVIDIA GPUs: the same bytes whenever the same is computed.

    Torch itself lets convolutions round to TF32.
    """
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = False  # it picks algorithms by the clock
    torch.backends.cudnn.deterministic = True


def resolve_compute(
    config: ComputeConfig,
    device: torch.device,
    recorded: Mapping[str, Any] | None = None,
    network: Any = None,
) -> Compute:
    """Fills in what ``auto`` stands for.

    Args:
        config: the section.
        device: where the run computes.
        recorded: ``run.json`` of a run that this one goes on with, or of rank 0: ``auto`` then
            stands for the batch sizes that are there, whatever is free now.
        network: ``auto`` leaves the memory format of one alone that lists no encoders.

    Raises:
        ConfigError: the budget is more than the GPU has.
    """
    gpu = device.type == "cuda"
    if config.channels_last == "auto":
        known = network is None or _lists_encoders(network)
        channels_last = gpu and (config.tf32 or config.precision != "float32") and known
    else:
        channels_last = config.channels_last
    chunks = _recorded_chunks(recorded) if config.memory == "auto" else None
    return Compute(
        precision=config.precision,
        tf32=config.tf32,
        channels_last=channels_last,
        cuda_graphs=_graphs(config, gpu, network),
        chunks=chunks or _chunks(config.memory, device),
    )


def _graphs(config: ComputeConfig, gpu: bool, network: Any) -> bool:
    """Our own networks say by a method that nothing but tensors changes between samples."""
    if config.cuda_graphs == "auto":
        return gpu and hasattr(network, "record_graphs")
    return gpu and config.cuda_graphs


def _record_graphs(network: Any) -> None:
    if not _has_fusion_layer(network):
        raise ConfigError(
            f"compute.cuda_graphs: {type(network).__name__} has no linear fusion layer "
            "(fusion_layer and tail), behind which work is recorded; set compute.cuda_graphs: auto"
        )
    if hasattr(network, "record_graphs"):
        network.record_graphs()


def _has_fusion_layer(network: Any) -> bool:
    """Whether it is a :class:`~.contract.LinearFusion`."""
    return all(callable(getattr(network, name, None)) for name in ("fusion_layer", "tail"))


def _recorded_chunks(recorded: Mapping[str, Any] | None) -> Chunks | None:
    before = (recorded or {}).get("compute", {}).get("chunk_bytes")
    return Chunks(**before) if before else None


def _chunks(memory: str, device: torch.device) -> Chunks:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        budget = int(FREE_SHARE * free) if memory == "auto" else parse_size(memory)
        if budget > total:
            raise ConfigError(
                f"compute.memory is {memory}: {device} has {total / 1e9:.1f}GB in all; give less, "
                "or auto"
            )
        return Chunks(*[_per_pass(budget)] * 3)
    usual = CPU_CHUNKS
    if memory == "auto":
        return usual
    most = _per_pass(parse_size(memory))
    return Chunks(*(min(size, most) for size in astuple(usual)))


def _per_pass(budget: int) -> int:
    """Bytes that may go into a pass."""
    return max(1, int(budget * PASS_SHARE) // PASS_FACTOR)


def _lists_encoders(network: Any) -> bool:
    """Whether it has the method; a network's own submodule of this name is something else."""
    encoders = getattr(network, "encoders", None)
    return callable(encoders) and not isinstance(encoders, nn.Module)


def _encoders(network: Any) -> list[nn.Module]:
    if not _lists_encoders(network):
        raise ConfigError(
            f"compute.channels_last: {type(network).__name__} does not say which of its modules "
            "are encoders; give it a method encoders() that lists them, or set "
            "compute.channels_last: false"
        )
    return list(network.encoders())


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` as a device that is there.

    Raises:
        ConfigError: it is not; says what is.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
        why = "" if torch.version.cuda else " (this torch is built without CUDA)"
        raise ConfigError(f"device {name} is not there{why}; there are: {there}")
    return torch.device("cuda", index)
