"""Complex numbers: tensors that torch conjugates when they are read, magnitudes, reciprocals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.linearised.replay import replay, replay_deviation
from tests.support.rule_oracle import normal

INPUTS = {name: normal(1, 3, 3, seed=s) for s, name in enumerate(("camera", "radar", "lidar"))}
Z, U = (torch.complex(normal(3, 3, seed=s), normal(3, 3, seed=s + 1)) for s in (5, 7))
VARIANTS = ("identity-ratio", "uniform-identity-sum", "identity-ratio-shapley", "coalitions")

#: Of two tensors that carry parts, with how a tensor is conjugated.
Product = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]
PRODUCTS: dict[str, Product] = {
    "of both": lambda a, b, conj: (a + Z) @ conj(b + U).mT,
    "of one": lambda a, b, conj: conj(a + Z) @ U + b,
    "with constants": lambda a, b, conj: a @ conj(Z) + b,
    "with what is added": lambda a, b, conj: torch.baddbmm(
        conj(Z)[None], conj(a + Z).mT, conj(b + U), beta=2, alpha=3
    ),
    "with a constant that is added": lambda a, b, conj: torch.addmm(
        conj(Z)[0], conj(a + b)[0].mT, conj(U), beta=2
    ),
    "half of it": lambda a, b, conj: conj(a + Z).imag @ conj(b + U).imag,
}


def _features(camera: Tensor, radar: Tensor, lidar: Tensor) -> tuple[Tensor, Tensor]:
    return torch.fft.fft(camera), torch.fft.fft(radar + lidar)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_tensor_that_is_conjugated_when_it_is_read(name: str, variant: str) -> None:
    """It has the parts of the one that is conjugated at once."""
    product, extras = PRODUCTS[name], {"radar": [INPUTS["camera"]]}

    def parts(conj: Callable[[Tensor], Tensor], keep_maps: bool) -> dict[str, Tensor]:
        result = decompose(
            lambda **features: product(*_features(**features), conj),
            INPUTS,
            variant,
            extras=extras,
            keep_maps=keep_maps,
        )
        if keep_maps:
            assert replay_deviation(replay(result, INPUTS), result) < 1e-12
        return {**result.named, "extra": result.extras["radar"][0]}

    wanted = parts(torch.conj_physical, False)
    for keep_maps in (False, True):
        for key, part in parts(torch.conj, keep_maps).items():
            torch.testing.assert_close(part.resolve_conj(), wanted[key], rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_magnitudes_are_roots_of_sums_of_squares(variant: str) -> None:
    def magnitudes(camera: Tensor, radar: Tensor, lidar: Tensor) -> list[Tensor]:
        z = torch.fft.fft(camera + radar + lidar)
        return [z.abs(), torch.linalg.vector_norm(z, dim=-1)]

    def written_out(camera: Tensor, radar: Tensor, lidar: Tensor) -> list[Tensor]:
        z = torch.fft.fft(camera + radar + lidar)
        size = torch.hypot(z.real, z.imag)
        return [size, size.square().sum(-1).sqrt()]

    found, wanted = (decompose(f, INPUTS, variant) for f in (magnitudes, written_out))
    for own, others in zip(found.named.values(), wanted.named.values(), strict=True):
        torch.testing.assert_close(own, others, rtol=0, atol=1e-12)


def test_a_reciprocal_for_every_coalition() -> None:
    def function(camera: Tensor, radar: Tensor, lidar: Tensor) -> Tensor:
        return torch.reciprocal(torch.complex(camera + radar, lidar) + Z).real

    result = decompose(function, INPUTS, "coalitions", keep_maps=True)
    assert replay_deviation(replay(result, INPUTS), result) < 1e-12


@pytest.mark.parametrize("variant", ["identity-ratio", "coalitions"])
@pytest.mark.parametrize(
    "write",
    [
        lambda z: z.conj().imag.neg_(),
        lambda z: z.conj().imag[..., 0].neg_(),
        lambda z: torch.view_as_real(z.conj().conj_physical_() * 1.0),
    ],
)
def test_what_is_negated_when_it_is_read_is_negated_in_place(
    write: Callable[[Tensor], Tensor], variant: str
) -> None:
    def function(camera: Tensor, radar: Tensor) -> list[Tensor]:
        z = torch.complex(radar, camera)
        written = write(z)
        return [written, torch.view_as_real(z) * 2.0]

    given = {"camera": normal(2, 3), "radar": normal(2, 3, seed=1)}
    result = decompose(function, given, variant, keep_maps=True)
    zeros = {name: torch.zeros_like(x) for name, x in given.items()}
    for total, plain in zip(result.total, function(**given), strict=True):
        assert torch.equal(total, plain)
    for name, x in given.items():
        alone = function(**{**zeros, name: x})
        for part, expected in zip(result.parts[name], alone, strict=True):
            torch.testing.assert_close(part, expected)
    assert replay_deviation(replay(result, given), result) == 0.0


def test_a_write_to_the_real_part_of_a_complex_tensor_is_replayed() -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        z = torch.complex(camera, radar)
        z.real.add_(0.25)
        return z.imag * z.abs().detach() + z.real

    given = {"camera": normal(2, 3), "radar": normal(2, 3, seed=1)}
    result = decompose(function, given, keep_maps=True)
    assert replay_deviation(replay(result, given), result) < 1e-14
