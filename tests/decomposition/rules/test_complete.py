"""Every rule in the registry is met by a case of some table, and softmax and statistics, which no
other table covers.

The tables are those that the tests of each kind compare with their oracles; here each case runs
once, and the rules that it met are taken down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.registry import find_rule, function_name, registered_operators
from lmd_cli.decomposition.tracing.calls import Call
from tests.decomposition.rules.test_activation import FUNCTIONS, bare_name, sample_for
from tests.decomposition.rules.test_activation import calls as calls_of_activation
from tests.decomposition.rules.test_composite import EXPONENTS, LOGITS
from tests.decomposition.rules.test_edges import OTHERS, check
from tests.decomposition.rules.test_recurrent import LAYERS
from tests.decomposition.rules.test_selection import ORDERED, TWO
from tests.decomposition.rules.test_transformer import ATTENTION
from tests.support.closed_forms import CLOSED_FORMS, PRODUCTS
from tests.support.joining_cases import CASES as JOINING
from tests.support.linear_cases import LINEAR, STRUCTURE
from tests.support.rule_oracle import (
    BIAS,
    Sample,
    aliases,
    assert_rows,
    assert_total,
    lookup,
    normal,
    rows_of,
)
from tests.support.scatter_cases import NOT_DIFFERENTIABLE

#: How each function is called, on values that are positive for ``rsqrt``.
CALLS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "softmax": lambda f, x: f(x, 1),
    "logsumexp": lambda f, x: f(x, 1),
    "special_softmax": lambda f, x: f(x, 1),
    "special_logsumexp": lambda f, x: f(x, 1),
    "reciprocal": lambda f, x: f(x + 9.0),
    "rsqrt": lambda f, x: f(x + 9.0),
    "reciprocal_": lambda f, x: f(x + 9.0),
    "rsqrt_": lambda f, x: f(x + 9.0),
}
STATISTICS = aliases("reciprocal", "rsqrt", "reciprocal_", "rsqrt_")
SOFTMAX = aliases("softmax", "logsumexp")


@pytest.mark.parametrize("function", [*SOFTMAX, *STATISTICS], ids=function_name)
def test_all_bias_or_the_jacobian(function: Any) -> None:
    """Frozen weights and statistics are bias; under ``taylor`` a part is J h, J by autograd."""
    call, sample = lookup(CALLS, function), Sample(3, 4)
    total = call(function, sample.total)
    result = sample.through(lambda x: call(function, x), "identity-ratio")
    assert_total(result, total)
    none = {k: [torch.zeros_like(total)] for k in sample.rows() if k != BIAS}
    assert_rows(result, {**none, BIAS: [total]})
    if function in STATISTICS:
        return
    jacobian: Any = torch.autograd.functional.jacobian(lambda x: call(function, x), sample.total)
    rows = {k: [torch.tensordot(jacobian, h, 2)] for k, h in sample.rows().items() if k != BIAS}
    rows[BIAS] = [total - rows["camera"][0] - rows["radar"][0]]
    assert_rows(sample.through(lambda x: call(function, x), "identity-ratio-identity-taylor"), rows)


Run = Callable[[], Any]
CUBE = Sample(2, 3, 4)


def of(table: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Every function of a table's names, with each of its cases."""
    return ((f, case) for f in aliases(*table) for case in lookup(table, f))


def two(function: Callable[[Tensor, Tensor], Any], sample: Sample = CUBE) -> Run:
    return lambda: decompose(lambda camera, radar: function(camera, radar), sample.parts)


def one(call: Callable[[Tensor], Any], sample: Sample = CUBE) -> Run:
    return two(lambda camera, radar: call(camera + radar + sample.bias), sample)


def linear_cases() -> Iterator[Run]:
    for f, (shape, call) in of(STRUCTURE | LINEAR):
        yield one(partial(call, f), Sample(*shape))
    for f, call in of(JOINING | NOT_DIFFERENTIABLE):
        yield two(partial(call, f))
    yield from map(one, (*OTHERS.values(), *LINEAR_OPERATORS.values()))


def nonlinear_cases() -> Iterator[Run]:
    for f in FUNCTIONS:
        yield from (one(call, sample_for(bare_name(f))) for call, _ in calls_of_activation(f))
    for f in (f for name in CLOSED_FORMS for f in aliases(name) if f.__name__ == name):
        yield from (two(partial(form.call, f)) for form in CLOSED_FORMS[f.__name__])
    yield from (two(partial(form.call, None)) for form in PRODUCTS.values())
    yield from (one(partial(lookup(CALLS, f), f)) for f in (*SOFTMAX, *STATISTICS))
    for table in (EXPONENTS, LOGITS, NORMS):
        yield from map(one, table.values())
    yield from (one(call) for call, _ in TWINS.values())
    yield from (lambda make=make: decompose(*make()) for make in (LAYERS | ATTENTION).values())


def selecting_cases() -> Iterator[Run]:
    for f, (args, kwargs, _) in of(ORDERED):
        yield one(lambda x, f=f, a=args, k=kwargs: f(x, *a, **k), Sample(3, 4, 5))
    for f in (getattr(torch, name) for name in TWO):
        yield one(lambda x, f=f: f(x, 0.5 * x[:1]))
    for n in (1, 2, 3):
        for f in aliases(f"max_pool{n}d", f"adaptive_max_pool{n}d"):
            yield one(lambda x, f=f: f(x, 2), Sample(2, 2, *(6,) * n))


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "threshold": lambda x: F.threshold(x, 0.3, 0.1),
    "batch_norm": lambda x: F.batch_norm(x, *STATISTIC),
    "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "group_norm": lambda x: F.group_norm(x, 3),
    "max": lambda x: x.max(),
    "min": lambda x: x.min(),
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin(1),
    "median": lambda x: x.median(),
    "nanmedian": lambda x: x.nanmedian(),
}
STATISTIC = (normal(3, seed=5), normal(3, seed=6).square() + 0.5)
aten = torch.ops.aten


def image(x: Tensor) -> Tensor:
    return x.unsqueeze(0)


def video(x: Tensor) -> Tensor:
    return x[None, None]


FACTORS = torch.linalg.lu_factor(normal(3, 3, seed=9).expand(2, 3, 3).contiguous())
#: Linear operators that torch calls for some arguments, on other devices, or in graphs only.
LINEAR_OPERATORS: dict[str, Callable[[Tensor], Any]] = {
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x, 2),
    "adaptive_avg_pool2d": lambda x: aten._adaptive_avg_pool2d(image(x), [2, 2]),
    "adaptive_avg_pool3d": lambda x: aten._adaptive_avg_pool3d(video(x), [1, 2, 2]),
    "pool 1": lambda x: aten.avg_pool1d(x, [2]),
    "pool 2": lambda x: aten.adaptive_avg_pool1d(x, [2]),
    "pool 3": lambda x: aten.adaptive_avg_pool2d(image(x), [2, 2]),
    "pool 4": lambda x: aten.adaptive_avg_pool3d(video(x), [1, 2, 2]),
    "bicubic": lambda x: aten._upsample_bicubic2d_aa(image(x), [2, 3], False, None, None),
    "nearest 1": lambda x: aten.upsample_nearest1d(x, [6]),
    "nearest 3": lambda x: aten.upsample_nearest3d(video(x), [2, 4, 5]),
    "exact 2": lambda x: aten._upsample_nearest_exact2d(image(x), [4, 5]),
    "exact 3": lambda x: aten._upsample_nearest_exact3d(video(x), [2, 4, 5]),
    "reflection": lambda x: aten.reflection_pad2d(image(x), [1, 1, 1, 1]),
    "replication 2": lambda x: aten.replication_pad2d(image(x), [1, 1, 1, 1]),
    "replication 3": lambda x: aten.replication_pad3d(video(x), [1] * 6),
    "index": lambda x: aten._unsafe_index(x, [None, torch.tensor([2, 0])]),
    "index_put": lambda x: aten._unsafe_index_put(x, [torch.tensor([1])], x[:1]),
    "nanmean": lambda x: aten.nanmean(x, [1]),
    "conj": lambda x: torch.view_as_real(aten.conj_physical(torch.complex(x, 2.0 * x))),
    "lift": lambda x: aten.lift_fresh(aten.lift(x)),
    "triangular": lambda x: aten.triangular_solve(x, torch.eye(3).double() + 1.0)[0],
    "solve": lambda x: torch.linalg.lu_solve(*FACTORS, x),
    "shuffle": lambda x: aten.native_channel_shuffle(image(x), 2),
    "where": lambda x: torch.where(x > 0, x, 0.3) + torch.where(x > 0, 0.2, x),
    "where self": lambda x: (
        aten.where.ScalarOther(x > 0, x, 0.3) + aten.where.ScalarSelf(x > 0, 0.2, x)
    ),
    "alias": lambda x: aten.alias_copy(x),
    "expand": lambda x: aten.expand_copy(x[:, :1], [2, 3, 4]),
    "narrow": lambda x: aten.narrow_copy(x, 1, 0, 2),
    "select": lambda x: aten.select_copy(x, 1, 0),
    "slice": lambda x: aten.slice_copy(x, 1, 0, 2),
    "split": lambda x: aten.split_with_sizes_copy(x, [1, 2], 1)[1],
    "squeeze": lambda x: aten.squeeze_copy(x[:1]),
    "t": lambda x: aten.t_copy(x[0]),
    "transpose": lambda x: aten.transpose_copy(x, 0, 1),
    "unbind": lambda x: aten.unbind_copy(x)[1],
    "unfold": lambda x: aten.unfold_copy(x, 2, 2, 1),
    "unsqueeze": lambda x: aten.unsqueeze_copy(x, 0),
    "view": lambda x: aten.view_copy(x, [6, 4]),
    "complex": lambda x: aten.view_as_real_copy(aten.view_as_complex_copy(x.unflatten(2, (2, 2)))),
    "select back": lambda x: aten.select_backward(x[0], [2, 3, 4], 0, 1),
    "slice back": lambda x: aten.slice_backward(x[:1], [2, 3, 4], 0, 1, 2, 1),
    "diagonal back": lambda x: aten.diagonal_backward(x[0, 0, :3], [3, 3], 0, 0, 1),
    "segments": lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([1, 1])),
    "bag": lambda x: aten._embedding_bag(x[0], torch.tensor([0, 1, 2]), torch.tensor([0, 2]))[0],
    "least": lambda x: x.min(1)[0] + torch.aminmax(x)[0] + aten._aminmax(x)[0],
    "counted": lambda x: torch.bincount(torch.tensor([0, 2, 1, 2]), x[0, 0]),
}
if hasattr(aten, "_upsample_lanczos2d_aa"):
    LINEAR_OPERATORS["lanczos"] = lambda x: aten._upsample_lanczos2d_aa(
        image(x), [2, 3], False, None, None
    )
#: Torch has no derivative of these.
UNDERIVED = ("counted", "shuffle", "complex", "least")
PARAMETERS = (normal(3, seed=7), normal(3, seed=8))
BATCH = (*PARAMETERS, *STATISTIC)
#: Operators as above, and the public functions that give the same parts.
TWINS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]]] = {
    "rms_norm": (
        lambda x: aten._fused_rms_norm(x, [4], None, 1e-5)[0],
        lambda x: F.rms_norm(x, (4,), None, 1e-5),
    ),
    "no update": (
        lambda x: aten._batch_norm_no_update(x, *BATCH, 0.1, 1e-5)[0],
        lambda x: batch_normed(x),
    ),
    "legit": (
        lambda x: aten._native_batch_norm_legit(x, *BATCH, False, 0.1, 1e-5)[0],
        lambda x: batch_normed(x),
    ),
    "functional": (
        lambda x: aten._native_batch_norm_legit_functional(x, *BATCH, False, 0.1, 1e-5)[0],
        lambda x: batch_normed(x),
    ),
    "no training": (
        lambda x: aten._native_batch_norm_legit_no_training(x, *BATCH, 0.1, 1e-5)[0],
        lambda x: batch_normed(x),
    ),
    "no statistics": (
        lambda x: aten._native_batch_norm_legit.no_stats(x, *PARAMETERS, True, 0.1, 1e-5)[0],
        lambda x: F.batch_norm(x, None, None, *PARAMETERS, True),
    ),
    "softmax": (lambda x: aten._safe_softmax(x, -1), lambda x: x.softmax(-1)),
    "distances": (lambda x: aten._euclidean_dist(x[0], x[1]), lambda x: torch.cdist(x[0], x[1])),
    "logaddexp": (
        lambda x: torch.logaddexp(x, 2.0 * x),
        lambda x: torch.stack([x, 2.0 * x]).logsumexp(0),
    ),
    "logaddexp2": (
        lambda x: torch.logaddexp2(x, 2.0 * x),
        lambda x: torch.logaddexp(x * math.log(2), 2.0 * x * math.log(2)) / math.log(2),
    ),
    "glu": (lambda x: F.glu(x), lambda x: x[..., :2] * torch.sigmoid(x[..., 2:])),
}


def batch_normed(x: Tensor) -> Tensor:
    return F.batch_norm(x, *STATISTIC, *PARAMETERS, False, 0.1, 1e-5)


@pytest.mark.parametrize("name", LINEAR_OPERATORS)
def test_operators_without_a_public_name(name: str) -> None:
    check(LINEAR_OPERATORS[name], (2, 3, 4), differentiable=name not in UNDERIVED)


@pytest.mark.parametrize("variant", ["identity-ratio", "uniform-uniform-ratio-taylor"])
@pytest.mark.parametrize("name", TWINS)
def test_operators_are_their_public_twins(name: str, variant: str) -> None:
    sample = Sample(2, 3, 4)
    call, twin = TWINS[name]
    result = sample.through(call, variant)
    assert_total(result, call(sample.total))
    assert_rows(result, rows_of(sample.through(twin, variant)))


@pytest.fixture(scope="module")
def met() -> set[int]:
    """Which rules were run."""
    actual: set[int] = set()
    plain = Call.linearise

    def linearise(self: Any, *args: Any, **kwargs: Any) -> Any:
        actual.add(id(self.rule))
        return plain(self, *args, **kwargs)

    Call.linearise = linearise  # type: ignore[method-assign]
    try:
        for case in (*linear_cases(), *nonlinear_cases(), *selecting_cases()):
            case()
    finally:
        Call.linearise = plain  # type: ignore[method-assign]
    return actual


#: Not met here, by reason.
ELSEWHERE: dict[str, str] = {
    "a kernel for GPUs": (
        "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention "
        "_scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable "
        "cudnn_batch_norm miopen_batch_norm _cudnn_rnn _thnn_fused_lstm_cell _thnn_fused_gru_cell "
        "cudnn_grid_sampler"
    ),
    "made of others on a CPU": (
        "_fused_rms_norm adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d "
        "nanmean where.ScalarOther where.ScalarSelf _grid_sampler_2d_cpu_fallback "
        "conj_physical"
    ),
    "what torch.jit.trace records": "_convolution",
    "it writes to running statistics, and is refused": (
        "_batch_norm_with_update _batch_norm_with_update_functional"
    ),
}


def test_every_rule_is_met(met: set[int]) -> None:
    rules = {str(key): find_rule(key) for key in registered_operators()}
    missed = {
        name for name, rule in rules.items()
        if rule is not None and rule.kind != "refused" and id(rule) not in met
    }  # fmt: skip
    elsewhere = {f"aten.{name}" for names in ELSEWHERE.values() for name in names.split()}
    assert missed == elsewhere & rules.keys()
