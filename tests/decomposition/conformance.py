"""Torch's own operator samples, decomposed: total, conservation, the program, linearity.

``python tests/decomposition/conformance.py`` runs all of them; the tests run a fixed tenth, in a
process of its own, since torch's module of samples changes global flags.
"""

from __future__ import annotations

import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import LeakError, NoRuleError, decompose
from lmd_cli.decomposition.linearised.replay import replay
from lmd_cli.decomposition.pytrees import leaves

#: Relative to the summed magnitudes of the parts.
TOLERANCE = 1e-12
PROGRAM_TOLERANCE = 1e-9
#: ``plain``: nothing that comes out carries parts.
KINDS = ("passed", "no rule", "plain", "plain call fails")
SKIPS = Path(__file__).with_name("conformance_skips.txt")


@dataclass(frozen=True)
class Sample:
    """One call of an operator.

    Attributes:
        name: ``operator[variant]#index/which``, where ``which`` argument carries parts.
        function: of its floating tensors.
        tensors: their values.
    """

    name: str
    function: Callable[[list[Tensor]], Any]
    tensors: list[Tensor]
    carrying: tuple[int, ...]


def skips() -> dict[str, str]:
    """Reasons by the name of an operator, or of one of its samples."""
    lines = SKIPS.read_text().splitlines()
    rows = (line.split(None, 1) for line in lines if line.strip() and not line.startswith("#"))
    return dict(rows)  # type: ignore[arg-type]


def samples(tenth: bool = False, only: str = "") -> Iterator[Sample]:
    """Every sample of every operator, or every tenth."""
    left_out = skips()
    for op in op_db:
        full = f"{op.name}[{op.variant_test_name}]" if op.variant_test_name else op.name
        if full in left_out or torch.float64 not in op.dtypes or (only and op.name != only):
            continue
        yield from (s for s in _of(op, full, tenth) if s.name.split("/")[0] not in left_out)


def _of(op: Any, full: str, tenth: bool) -> Iterator[Sample]:
    torch.manual_seed(0)
    for index, sample in enumerate(op.sample_inputs("cpu", torch.float64, requires_grad=False)):
        name = f"{full}#{index}"
        if tenth and zlib.crc32(name.encode()) % 10:
            continue
        flat, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        at = [i for i, v in enumerate(flat) if isinstance(v, Tensor) and v.dtype == torch.float64]
        at = [i for i in at if flat[i].layout is torch.strided]
        if not at or not all(bool(flat[i].isfinite().all()) for i in at):
            continue
        call = _call(op.op, flat, spec, at)
        tensors = [flat[i].detach() for i in at]
        which = [tuple(range(len(at)))]
        which += [(i,) for i in range(len(at))] if len(at) > 1 else []
        for carrying in which:
            yield Sample(f"{name}/{','.join(map(str, carrying))}", call, tensors, carrying)


def _call(op: Any, flat: list[Any], spec: Any, at: list[int]) -> Callable[[list[Tensor]], Any]:
    def function(tensors: list[Tensor]) -> Any:
        values = list(flat)
        for i, value in zip(at, tensors, strict=True):
            values[i] = value
        first, args, kwargs = pytree.tree_unflatten(values, spec)
        return op(first, *args, **kwargs)

    return function


def check(sample: Sample) -> str:
    """One of :data:`KINDS`, or what is wrong."""
    inputs: dict[str, list[Tensor]] = {"camera": [], "radar": []}
    for i in sample.carrying:
        x = sample.tensors[i]
        first = torch.rand(x.shape, generator=torch.Generator().manual_seed(i)) < 0.5
        inputs["camera"].append(torch.where(first, 2.0 * x, -3.0 * x))
        inputs["radar"].append(torch.where(first, -3.0 * x, 2.0 * x))

    def function(camera: list[Tensor], radar: list[Tensor]) -> Any:
        tensors = [t.clone() for t in sample.tensors]
        for k, i in enumerate(sample.carrying):
            tensors[i] = camera[k] + radar[k] + 2.0 * sample.tensors[i]  # x, without rounding
        return sample.function(tensors)

    try:
        plain = function(**inputs)
    except Exception:  # the sample is of something that is not there
        return "plain call fails"
    try:
        result = decompose(function, inputs, keep_maps=True, bilinear="interaction")
    except NoRuleError:
        return "no rule"
    except LeakError as error:
        return "plain" if "no output carries parts" in str(error) else "no rule"
    except Exception as error:  # an error of torch inside a rule is a fault of the rule
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return _differences(plain, result, inputs) or "passed"


def _differences(plain: Any, result: Any, inputs: dict[str, list[Tensor]]) -> str:
    for value, wanted in zip(_floats(result.total), _floats(plain), strict=True):
        if not torch.equal(value.nan_to_num(7.0), wanted.nan_to_num(7.0)):
            return "total is not the plain one"
    parts = [*result.parts.values(), result.own_bias, result.interaction]
    for total, *split in zip(_floats(result.total), *map(_floats, parts), strict=True):
        gap = _gap(total, sum(split), sum(p.abs() for p in split))
        if gap > max(TOLERANCE, 4 * torch.finfo(total.dtype).eps):
            return f"conservation {gap:.1e}"
    again = replay(result, inputs)
    for name, tree in {**result.parts, "bias": result.own_bias}.items():
        if (gap := _largest_gap(again[name], tree, parts)) > PROGRAM_TOLERANCE:
            return f"program differs in {name}: {gap:.1e}"
    return _nonlinear(result, inputs)


def _nonlinear(result: Any, inputs: dict[str, list[Tensor]]) -> str:
    """A part is linear in its input: f(x) + f(y) = f(x + y)."""
    camera = inputs["camera"]
    if any(output.varies for step in result.program.steps for output in step.outputs):
        return ""  # a modality's features are multiplied with each other
    other = [torch.flip(x, tuple(range(x.dim()))) for x in camera]
    both = [x + y for x, y in zip(camera, other, strict=True)]
    x, y, z = (
        replay(result, {**inputs, "camera": value}, only=["camera"])["camera"]
        for value in (camera, other, both)
    )
    for a, b, c in zip(_floats(x), _floats(y), _floats(z), strict=True):
        gap = _gap(c, a + b, a.abs() + b.abs())
        if gap > max(PROGRAM_TOLERANCE, 4 * torch.finfo(a.dtype).eps):
            return f"not linear: {gap:.1e}"
    return ""


def _floats(tree: Any) -> list[Tensor]:
    actual = [x for x in leaves(tree) if isinstance(x, Tensor)]
    return [x for x in actual if x.is_floating_point() or x.is_complex()]


def _gap(a: Tensor, b: Any, scale: Any) -> float:
    """The largest difference where all is finite (NaN of the samples' own is no fault)."""
    if a.numel() == 0:
        return 0.0
    finite = torch.isfinite(a) & torch.isfinite(scale)
    difference = torch.where(finite, (a - b).abs(), 0.0)
    size = torch.where(finite, scale, 0.0)
    gap = float(difference.max()) / max(float(size.max()), 1e-300)
    return gap if gap == gap else float("inf")


def _largest_gap(a: Any, b: Any, parts: list[Any]) -> float:
    scales = zip(*map(_floats, parts), strict=True)
    triples = zip(_floats(a), _floats(b), scales, strict=True)
    return max((_gap(x, y, sum(p.abs() for p in s)) for x, y, s in triples), default=0.0)


def main(*arguments: str) -> int:
    """Prints what failed, and how many of each there were.

    Args:
        arguments: ``--tenth``, or the name of one operator.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    passed, without = set(), set()
    only = next((name for name in arguments if not name.startswith("--")), "")
    for sample in samples("--tenth" in arguments, only):
        actual, name = check(sample), sample.name.split("#")[0]
        kind = actual if actual in KINDS else "failed"
        counts[kind] += 1
        if kind == "failed":
            print(sample.name, actual, flush=True)
        elif kind in ("passed", "no rule"):
            (passed if kind == "passed" else without).add(name)
    print("operators without a rule:", *sorted(without - passed))
    print(f"{len(passed)} operators;", ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    return counts["failed"]


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
