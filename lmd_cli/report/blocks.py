"""A network's operations in blocks, by the names of its modules, so that a chart can be read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

#: Blocks at most, if the names allow it; operations up to which each has a bar of its own.
MOST_BLOCKS, MOST_BARS = 16, 80


def block_names(modules: Sequence[str], most: int = MOST_BLOCKS) -> list[str]:
    """The block of each operation, as fine as ``most`` stretches of one block allow.

    ``encoder.layers.3.attention`` lies in ``encoder``, ``encoder.layers`` or ``encoder.layers.3``.

    Args:
        modules: qualified names, in the order of execution.
    """
    depth = max((module.count(".") + 1 for module in modules), default=1)
    levels = [(d, numbered) for d in range(1, depth + 1) for numbered in (False, True)]
    candidates = [[_block(module, *level) for module in modules] for level in levels]
    counts = [len(list(groupby(names))) for names in candidates]
    fitting = [i for i, count in enumerate(counts) if count <= most] or [0]
    return candidates[max(fitting, key=lambda i: (counts[i], -i))]


def stretches(names: Sequence[str]) -> list[tuple[int, int]]:
    """Start and end of every stretch of one name."""
    starts = [i for i in range(len(names)) if i == 0 or names[i] != names[i - 1]]
    return list(pairwise([*starts, len(names)]))


def drawn_operations(names: Sequence[str]) -> list[int]:
    """Which operations a chart draws: each, or of very many the last of every stretch."""
    if len(names) <= MOST_BARS:
        return list(range(len(names)))
    return [end - 1 for _, end in stretches(names)]


def note(count: int, drawn: int) -> str:
    """What a chart's bars are, in words."""
    order = "from the fusion (left) to the prediction"
    if drawn == count:
        return f"After each of {count} operations, {order}"
    return f"After the last operation of each of {drawn} blocks ({count} operations), {order}"


def last_name(block: str) -> str:
    """``layers.3`` of ``encoder.layers.3``; ``network`` of what runs in none of its modules."""
    parts = block.split(".")
    return ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:]) or "network"


def _block(module: str, depth: int, numbered: bool) -> str:
    """The first ``depth`` components that are no numbers, and the number behind the last."""
    kept: list[str] = []
    for part in module.split("."):
        if part.isdigit() and kept:
            if numbered and len(kept) == depth:
                return ".".join([*kept, part])
        elif len(kept) == depth:
            break
        else:
            kept.append(part)
    return ".".join(kept)
