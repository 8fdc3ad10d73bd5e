"""The table of guarantees in docs/trust.md, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lmd_cli
from lmd_cli.attribution import method_named, parts
from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.linearised.replay import Linearised
from tests.support.rule_oracle import normal

PAGE = Path(lmd_cli.__file__).parent / "docs" / "trust.md"
Fuse = Callable[..., Tensor]


def value(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def explained(method: str, fuse: Fuse, **features: Tensor) -> dict[str, Tensor]:
    """Every part, and the bias."""
    return dict(parts(method_named(method), fuse, features))


def same(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return bool(torch.allclose(a, b.expand_as(a), rtol=0, atol=tolerance))


def deep(camera: Tensor, radar: Tensor) -> Tensor:
    mixed = torch.relu(camera @ W[0] + radar @ W[1] + 0.3)
    return torch.tanh(mixed @ W[2] - 0.2)


W = [normal(4, 4, seed=i) for i in range(3)]


def adds_up(method: str) -> bool:
    given = {"camera": normal(1, 4, seed=5), "radar": normal(1, 4, seed=6)}
    actual = explained(method, deep, **given)
    return same(sum(actual.values(), torch.zeros(1, 4).double()), deep(**given))


def is_linear(method: str) -> bool:
    """The part of a replaced sensor, the other as it was."""
    camera, radar, other = (normal(1, 4, seed=i) for i in (5, 6, 7))
    given = {"camera": camera, "radar": radar}

    def part(x: Tensor) -> Tensor:
        if not method.startswith("lmd:"):
            return explained(method, deep, camera=x, radar=radar)["camera"]
        result = decompose(deep, given, method.removeprefix("lmd:"), keep_maps=True)
        replaced: Tensor = Linearised(result).part("camera", x)
        return replaced

    return same(part(2 * camera + other), 2 * part(camera) + part(other))


def gives_zero_nothing(method: str) -> bool:
    parts = explained(method, deep, camera=torch.zeros(1, 4).double(), radar=normal(1, 4, seed=6))
    if method == "lmd:coalitions":  # values of two coalitions, each with rounding of its own
        return same(parts["camera"], torch.zeros(1, 4).double())
    return not parts["camera"].any()


#: The same function, written twice: nothing is left of the difference.
TWICE: list[Fuse] = [
    lambda camera, radar: torch.relu(torch.relu(camera + radar)) - torch.relu(camera + radar),
    lambda camera, radar: torch.sigmoid(2 * (camera + radar)) * 2 - 1 - torch.tanh(camera + radar),
    lambda camera, radar: (
        torch.relu(torch.relu(camera) - 1 - torch.relu(radar))
        - torch.relu(torch.relu(camera - 1) - torch.relu(radar))
    ),
]
PLACES = [(3.0, 1.0), (3.0, -1.0), (0.4, 0.7)]


def beside_the_camera(method: str) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """The camera, and what the parts of it and such a difference are."""
    return [
        (
            value(x),
            explained(
                method,
                lambda camera, radar, f=f: f(camera, radar) + camera,
                camera=value(x),
                radar=value(y),
            ),
        )
        for f in TWICE
        for x, y in PLACES
    ]


def gives_the_ignored_nothing(method: str) -> bool:
    zero = torch.zeros(()).double()
    return all(same(actual["radar"], zero) for _, actual in beside_the_camera(method))


def sees_the_function_alone(method: str) -> bool:
    return all(
        same(part, camera if name == "camera" else torch.zeros(()).double())
        for camera, actual in beside_the_camera(method)
        for name, part in actual.items()
    )


def is_symmetric(method: str) -> bool:
    x = normal(1, 4, seed=5)
    actual = explained(
        method,
        lambda camera, radar: torch.tanh(torch.relu(camera + radar - 0.3)),
        camera=x,
        radar=x,
    )
    return same(actual["camera"], actual["radar"])


def credits_switching_off(method: str) -> bool:
    actual = explained(
        method,
        lambda camera, radar: torch.relu(1 - radar) + camera,
        camera=value(1.0),
        radar=value(2.0),
    )
    return same(actual["radar"], value(-1.0))


def is_continuous(method: str) -> bool:
    """On both sides of where the total passes zero."""

    def at(radar: float) -> Mapping[str, Tensor]:
        return explained(
            method,
            lambda camera, radar: torch.relu(camera + radar),
            camera=value(1.0),
            radar=value(radar),
        )

    below, above = at(-1 - 1e-7), at(-1 + 1e-7)
    return all(same(below[name], above[name], 1e-5) for name in below)


def undoes_a_shift(method: str) -> bool:
    """Features that are one more, and a network that takes it off again."""
    usual = explained(
        method, lambda camera, radar: camera + radar, camera=value(1.0), radar=value(2.0)
    )
    moved = explained(
        method, lambda camera, radar: (camera - 1) + radar, camera=value(2.0), radar=value(2.0)
    )
    return same(usual["camera"], moved["camera"])


CHECKS = {
    "the parts and the bias add up": adds_up,
    "a part is linear in its own sensor": is_linear,
    "nothing for a sensor that is zero": gives_zero_nothing,
    "nothing for a sensor that the network ignores": gives_the_ignored_nothing,
    "the same for sensors in the same role": is_symmetric,
    "credit for switching off": credits_switching_off,
    "the same parts, however the function is written": sees_the_function_alone,
    "parts without jumps": is_continuous,
    "a shift that a bias undoes changes nothing": undoes_a_shift,
}


def cells() -> list[tuple[str, str, str]]:
    """(guarantee, method, cell), as the page says."""
    lines = PAGE.read_text().split("<!-- guarantees -->")[1].split("<!-- end -->")[0].split("\n")
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    header, _, *body = rows
    return [
        (row[0], method if method == "shapley" else f"lmd:{method}", cell)
        for row in body
        for method, cell in zip(header[1:], row[1:], strict=True)
    ]


def test_every_guarantee_is_checked() -> None:
    assert {name for name, _, _ in cells()} == set(CHECKS)


@pytest.mark.parametrize(("name", "method", "cell"), cells())
def test_a_cell(name: str, method: str, cell: str) -> None:
    assert cell.startswith(("yes", "no ("))
    assert CHECKS[name](method) is cell.startswith("yes")


# -- the page's counter-examples, by number -------------------------------------------------------


def camera_alone(method: str, fuse: Callable[[Tensor], Tensor], c: float) -> float:
    parts = explained(method, lambda camera, radar: fuse(camera), camera=value(c), radar=value(1.0))
    return float(parts["camera"])


def of_both(method: str, fuse: Fuse, c: float, r: float) -> tuple[float, float]:
    parts = explained(method, fuse, camera=value(c), radar=value(r))
    return float(parts["camera"]), float(parts["radar"])


def test_1_a_shapley_value_is_not_linear() -> None:
    values = [camera_alone("shapley", lambda c: torch.relu(c - 1), c) for c in (1.0, 2.0)]
    assert values == [0.0, 1.0]
    moved = [
        of_both("shapley", lambda camera, radar: torch.relu(camera + radar), 1.0, r)[0]
        for r in (1.0, -1.0)
    ]
    assert moved == [1.0, 0.5]


@pytest.mark.parametrize(("number", "fuse"), [(3, TWICE[0]), (2, TWICE[1]), (4, TWICE[2])])
def test_2_to_4_who_gives_a_part_of_a_difference_that_is_zero(number: int, fuse: Fuse) -> None:
    """Those whose cell names the counter-example, and no other."""
    guarantee = "nothing for a sensor that the network ignores"
    row = {method: cell for name, method, cell in cells() if name == guarantee}

    def gives(method: str) -> bool:
        beside = [
            of_both(method, lambda camera, radar: fuse(camera, radar) + camera, *at)[1]
            for at in PLACES
        ]
        return beside != pytest.approx([0.0] * len(PLACES), abs=1e-9)

    assert {m for m in row if gives(m)} == {m for m in row if f"({number})" in row[m]}


@pytest.mark.parametrize("rule", ["shapley", "reveal"])
def test_3_a_second_activation_takes_off_each(rule: str) -> None:
    method = f"lmd:identity-ratio-{rule}"
    once = of_both(method, lambda camera, radar: torch.relu(camera + radar), 3.0, -1.0)
    twice = of_both(method, lambda camera, radar: torch.relu(torch.relu(camera + radar)), 3.0, -1.0)
    assert sum(once) == sum(twice) == 2.0
    assert once[0] != twice[0]


def test_5_what_switches_off() -> None:
    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return torch.relu(1 - radar) + camera

    rules = ("", "-shapley", "-reveal", "-rescale")
    taken = [of_both(f"lmd:identity-ratio{rule}", fuse, 1.0, 2.0)[1] for rule in rules]
    assert taken == [0.0, -1.0, -1.0, -1.0]


def test_6_one_slope_for_all_jumps() -> None:
    def beside(method: str) -> list[float]:
        sides = (-1 - 1e-7, -1 + 1e-7)
        return [
            of_both(method, lambda camera, radar: torch.relu(camera + radar), 1.0, r)[0]
            for r in sides
        ]

    assert beside("lmd:identity-ratio") == [0.0, 1.0]
    assert beside("lmd:identity-ratio-rescale") == [0.0, 1.0]
    assert beside("lmd:identity-ratio-shapley") == pytest.approx([0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize("method", sorted({method for _, method, _ in cells()}))
def test_7_zero_is_a_convention(method: str) -> None:
    usual = explained(method, lambda camera, radar: camera + radar, camera=value(1), radar=value(2))
    moved = explained(
        method, lambda camera, radar: (camera - 1) + radar, camera=value(2), radar=value(2)
    )
    assert list(usual) == list(moved) == ["camera", "radar", "bias"]
    assert [float(part) for part in usual.values()] == [1.0, 2.0, 0.0]
    assert [float(part) for part in moved.values()] == [2.0, 2.0, -1.0]


def test_8_a_frozen_edge_extrapolates() -> None:
    given = {"camera": value(2.0), "radar": value(1.0)}
    result = decompose(
        lambda camera, radar: torch.relu(camera - 1) + radar, given, "coalitions", keep_maps=True
    )
    assert float(Linearised(result).part("camera", value(4.0))) == 2.0
    assert camera_alone("lmd:coalitions", lambda c: torch.relu(c - 1), 4.0) == 3.0
