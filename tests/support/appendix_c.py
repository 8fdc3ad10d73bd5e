"""Appendix C case by case, on one neuron's numbers: the oracle of the bias-splitting rules."""

from __future__ import annotations

from collections.abc import Sequence


def camera_condition(c: float, r: float, b: float) -> bool:
    """C.1 for two modalities, as printed, with "or" between the two lines."""
    return (c < 0 and r > 0 and b < 0) or (c > 0 and r < 0 and b > 0)


def radar_condition(c: float, r: float, b: float) -> bool:
    return (c < 0 and r > 0 and b > 0) or (c > 0 and r < 0 and b < 0)


def sum_shares_of_two(c: float, r: float, b: float) -> tuple[float, float]:
    if camera_condition(c, r, b):
        return 1.0, 0.0
    if radar_condition(c, r, b):
        return 0.0, 1.0
    return 0.0, 0.0


def ratio_shares_of_two(c: float, r: float, b: float) -> tuple[float, float]:
    """C.2 for two modalities, as printed: alpha is radar's weight."""
    alpha = abs(r) / (abs(c) + abs(r)) if c or r else 0.0
    if (c > 0 and r > 0 and b > 0) or (c < 0 and r < 0 and b < 0):
        return 1.0 - alpha, alpha
    if (c > 0 and r > 0 and b < 0) or (c < 0 and r < 0 and b > 0):
        return alpha, 1.0 - alpha
    return 0.0, 0.0


def sum_shares_of_many(parts: Sequence[float], b: float) -> list[float]:
    """The generalisation: the bias goes to the one modality that alone has its sign."""
    signs = [(part > 0) - (part < 0) for part in parts]
    sign = (b > 0) - (b < 0)
    shares = [0.0] * len(parts)
    if sign == 0 or 0 in signs:
        return shares
    agreeing = [i for i, s in enumerate(signs) if s == sign]
    if len(agreeing) == 1:
        shares[agreeing[0]] = 1.0
    return shares


def ratio_shares_of_many(parts: Sequence[float], b: float) -> list[float]:
    """The generalisation: in proportion to |h_m|, or to what the others have of it."""
    count, scale = len(parts), sum(abs(part) for part in parts)
    positive, negative = all(p > 0 for p in parts), all(p < 0 for p in parts)
    if b == 0 or not (positive or negative):
        return [0.0] * count
    weights = [abs(part) / scale for part in parts]
    if (b > 0) == positive:
        return weights
    return [(1.0 - w) / (count - 1) if count > 1 else 0.0 for w in weights]


def shares(parts: Sequence[float], b: float, split: str) -> list[float]:
    """Every modality's share of the bias part ``b`` at one neuron."""
    if split == "identity":
        return [0.0] * len(parts)
    if len(parts) == 2:
        of_two = sum_shares_of_two if split == "sum" else ratio_shares_of_two
        return list(of_two(parts[0], parts[1], b))
    return (sum_shares_of_many if split == "sum" else ratio_shares_of_many)(parts, b)
