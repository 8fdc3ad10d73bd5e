"""Python's share of a decomposition: microseconds for each operation of a network of small ones.

Run: ``python -m scripts.benchmarks.dispatch``.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.decomposition import decompose

#: Operations of one block, and how many blocks there are: 200 operations.
OPERATIONS, BLOCKS = 10, 20
WIDTH = 8
REPEATS = 15


class Block(nn.Module):
    """Ten small operations: layers, a norm, sums, products and views."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.scale = nn.Parameter(torch.rand(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(self.norm(x)))
        h = h.view(2, 2, 2, WIDTH).transpose(1, 2).reshape(8, WIDTH)
        h = self.second(h) * self.scale
        return x + F.relu(h)


class Network(nn.Module):
    """Fuses two inputs and runs the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return self.blocks(camera + radar)


def microseconds(function: Callable[[], object]) -> float:
    """The fastest of some calls, for each operation."""
    function()
    best = float("inf")
    for _ in range(REPEATS):
        start = process_time()
        function()
        best = min(best, process_time() - start)
    return 1e6 * best / (OPERATIONS * BLOCKS)


def main() -> None:
    """Prints both figures, and what a decomposition adds to the plain network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Network().double().eval()
    inputs = {name: torch.randn(8, WIDTH, dtype=torch.float64) for name in ("camera", "radar")}
    with torch.no_grad():
        plain = microseconds(lambda: network(**inputs))
    split = microseconds(lambda: decompose(network, inputs))
    print(f"plain      {plain:7.1f} us an operation")
    print(f"decomposed {split:7.1f} us an operation, {split / plain:.1f} times plain")
    print(f"added      {split - plain:7.1f} us an operation")


if __name__ == "__main__":
    main()
