"""Ways to run a network: in threads, with generators, loops and vmap, exported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import (
    Decomposition,
    LeakError,
    decompose,
)
from tests.support.rule_oracle import normal

C, R, L = normal(3, 4), normal(3, 4, seed=1), normal(3, 4, seed=2)


INPUTS = {"camera": C, "radar": R}


def both(function: Callable[..., Any], **options: Any) -> Decomposition:
    return decompose(function, INPUTS, **options)


def test_two_decompositions_in_two_threads() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).double()
    wanted = both(lambda camera, radar: network(camera + radar))
    scaled = decompose(
        lambda camera, radar: network(camera + radar), {"camera": 3.0 * C, "radar": R}
    )
    results: dict[int, Any] = {}
    ready = threading.Barrier(2)

    def work(index: int) -> None:
        inputs = {"camera": (1.0 + 2.0 * index) * C, "radar": R}
        ready.wait()
        for _ in range(20):
            results[index] = decompose(
                lambda camera, radar: network(camera + radar), inputs, audit="raise"
            )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result, expected in ((results[0], wanted), (results[1], scaled)):
        assert torch.equal(result.parts["camera"], expected.parts["camera"])
        assert torch.equal(result.bias, expected.bias)


def test_a_module_that_the_network_runs_in_another_thread_is_a_leak() -> None:
    module = nn.ReLU()

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(module, camera).result() + radar

    with pytest.raises(LeakError, match=r"\(ReLU\) runs in another thread"):
        both(function)


def by_thread(function: Callable[[], Tensor]) -> Tensor:
    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0] if results else torch.zeros(3, 4)


RUNNING = ThreadPoolExecutor(1)  # its thread may be older than the decomposition
ELSEWHERE: list[Callable[[Callable[[], Tensor]], Tensor]] = [
    by_thread,
    lambda function: RUNNING.submit(function).result(),
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_an_operator_that_another_thread_runs_on_features_is_a_leak(
    elsewhere: Callable[[Callable[[], Tensor]], Tensor],
) -> None:
    assert elsewhere(lambda: C).equal(C)
    with pytest.raises(LeakError, match="mul runs in another thread, whose operators"):
        both(lambda camera, radar: elsewhere(lambda: camera * 2.0) + radar)


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_another_thread_may_work_on_constants(
    elsewhere: Callable[[Callable[[], Tensor]], Tensor],
) -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        scale = camera.detach()
        return camera + radar * elsewhere(lambda: scale.abs().max() * L)

    result = both(function)
    assert torch.equal(result.parts["radar"], R * (C.abs().max() * L))
    assert torch.equal(elsewhere(lambda: C * 2.0), 2.0 * C)


# -- how a network is run --------------------------------------------------------------------------


def test_generators_come_back_as_lists() -> None:
    def function(camera: Tensor, radar: Tensor) -> Iterator[Tensor]:
        yield camera + radar
        yield 2.0 * camera

    result = both(function)
    assert isinstance(result.total, list)
    assert torch.equal(result.parts["camera"][1], 2.0 * C)


def test_a_loop_over_single_samples_is_the_batch() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU()).double()
    together = both(lambda camera, radar: network(camera + radar))
    one_by_one = both(
        lambda camera, radar: torch.cat(
            [network(camera[i : i + 1] + radar[i : i + 1]) for i in range(len(camera))]
        )
    )
    for name in INPUTS:
        torch.testing.assert_close(one_by_one.parts[name], together.parts[name], rtol=0, atol=1e-13)


def test_vmap_and_functional_calls_inside_the_network() -> None:
    weight, layer = normal(4, 4, seed=5), nn.Linear(4, 4, bias=False).double()

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = torch.vmap(lambda a, b: torch.relu(a @ weight) + b)(camera, radar)
        x = torch.vmap(torch.vmap(lambda a: a.square().sum() * a))(x[None])[0]
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    def written_out(camera: Tensor, radar: Tensor) -> Tensor:
        x = torch.relu(camera @ weight) + radar
        return (x.square().sum(-1, keepdim=True) * x) @ weight.mT

    result, wanted = both(function, audit="raise"), both(written_out)
    for name in INPUTS:
        torch.testing.assert_close(result.parts[name], wanted.parts[name], rtol=0, atol=1e-13)


def test_an_exported_network() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4)).double().eval()
    exported = torch.export.export(network, (C,)).module()
    result = both(lambda camera, radar: exported(camera + radar))
    wanted = both(lambda camera, radar: network(camera + radar))
    assert torch.equal(result.total, wanted.total)
    assert torch.equal(result.parts["camera"], wanted.parts["camera"])


def test_a_traced_network() -> None:
    network = nn.Sequential(nn.Conv1d(3, 3, 3, padding=1), nn.ReLU(), nn.Linear(4, 4)).double()
    traced = torch.jit.trace(network, C)
    found, wanted = (
        both(lambda camera, radar: layers(camera + radar), audit="raise")  # noqa: B023
        for layers in (traced, network)
    )
    assert torch.equal(found.total, wanted.total)
    torch.testing.assert_close(found.parts["camera"], wanted.parts["camera"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("mask", [torch.tensor(True), torch.tensor(False), True, None])
def test_indexing_by_a_mask_without_dimensions(mask: Any) -> None:
    result = both(lambda camera, radar: (camera + 2.0 * radar)[mask])
    assert torch.equal(result.total, (C + 2.0 * R)[mask])
    assert torch.equal(result.parts["radar"], (2.0 * R)[mask])


def test_expanded_inputs_are_read_only_for_nobody() -> None:
    inputs = {"camera": C[:1].expand(3, 4), "radar": R[:, :1].expand(3, 4)}

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        camera[0] += 1.0
        return torch.sigmoid(camera) * radar.add_(1.0)

    result = decompose(function, inputs, audit="raise", bilinear="interaction")
    plain = function(**{name: x.clone() for name, x in inputs.items()})
    assert torch.equal(result.total, plain)
    assert torch.equal(inputs["camera"], C[:1].expand(3, 4))


def test_nested_outputs_with_everything_in_them() -> None:
    result = both(lambda camera, radar: {"a": [camera, (radar, None)], "b": "text", "c": 3})
    assert result.total["b"] == "text"
    assert result.total["a"][1][1] is None
    assert torch.equal(result.parts["radar"]["a"][1][0], R)
