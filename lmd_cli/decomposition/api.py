"""``decompose``: a prediction split exactly into modalities and bias."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lmd_cli.decomposition import rules as _rules  # noqa: F401  (registers the rules)
from lmd_cli.decomposition.errors import InputError, LeakError
from lmd_cli.decomposition.forgetting import Forgetting
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.modules import find_root
from lmd_cli.decomposition.overrides import ModuleRules, VariantByModule
from lmd_cli.decomposition.result import Decomposition, Parts
from lmd_cli.decomposition.session import Session
from lmd_cli.decomposition.tensor import DecomposedTensor, not_finite
from lmd_cli.decomposition.tree import (
    carries_parts,
    leaves,
    map_tensors,
    named_leaves,
    paths,
    with_leaves,
)
from lmd_cli.decomposition.variant import Variant


def decompose(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    variant: str | Variant = "identity-ratio",
    *,
    constants: Mapping[str, Any] | None = None,
    extras: Mapping[str, Sequence[Any]] | None = None,
    layers: Iterable[str] | Literal["all"] = (),
    root: nn.Module | None = None,
    audit: bool | Literal["raise"] = False,
    keep_frozen: bool = False,
    plain_modules: Iterable[str] = (),
    grad: bool = False,
    bilinear: Literal["bias", "interaction"] = "bias",
    rules: ModuleRules | None = None,
) -> Decomposition:
    """Runs ``function(**inputs, **constants)`` once and splits its output into parts.

    The total is bit for bit what the plain call returns, and total = sum of the modalities' parts
    + bias at every operation (eq. 7, 8). The model gets no hooks or attributes.

    Args:
        function: a module, a bound method, or any function of tensors.
        inputs: for each modality its tensor, or nested dicts, lists, (named) tuples and
            dataclasses of tensors.
        variant: linearisation rules, BN-NORM[-ACT].
        constants: other arguments; they belong to no modality, and what they add is bias.
        extras: for each modality, alternatives of the same structure as its input; they ride
            along at the operating point of ``inputs`` and come back as ``result.extras``.
        layers: qualified module names (or ``"all"``) whose output's parts are wanted too.
        root: the module that names are relative to; guessed from ``function`` if not given.
        audit: record conservation and shares at every operation (``result.operations``);
            ``"raise"``: an operation that breaks conservation is an error that names it.
        keep_frozen: keep the linearised maps for a replay (``result.tape``).
        plain_modules: names of modules that may return plain tensors for decomposed inputs.
        grad: let gradients flow through the parts.
        bilinear: where products of different modalities are reported: in ``result.bias`` (the
            paper's choice), or in ``result.interaction`` alone. No other part depends on it.
        rules: other fields of the variant for modules whose qualified name matches a pattern:
            ``{"decoder.layer3.*": {"activation": "taylor"}}``; those that were set for the root
            (:func:`set_module_rules`) if none.

    Raises:
        InputError: inputs that are not finite floating tensors by name, unknown layers, a bad
            variant name, rules for no module.
        ConservationError: with ``audit="raise"``, a rule whose parts do not sum to the total.
        NoRuleError: an operation without a rule; it names the operation and its module.
        LeakError: an operation that would drop parts silently.
    """
    if bilinear not in ("bias", "interaction"):
        raise InputError(f"bilinear must be 'bias' or 'interaction', not {bilinear!r}")
    layout = Layout(names_of(inputs), {k: len(v) for k, v in (extras or {}).items()})
    root = root if root is not None else find_root(function)
    recorder = LayerRecorder(layers, layout, root, bilinear == "bias")
    session = Session(
        layout,
        VariantByModule(parse_variant(variant), rules, root),
        root=root,
        audit=audit,
        keep_frozen=keep_frozen,
        on_layer=recorder if recorder.wanted else None,
        plain_modules=frozenset(plain_modules),
    )
    with nullcontext() if grad else torch.no_grad():
        lifted = {
            name: lift(layout, name, inputs[name], (extras or {}).get(name, ())) for name in inputs
        }
        session.borrow(lifted)
        with session.open():
            output = function(**lifted, **(constants or {}))
            session.refuse_hidden_writes("the output", output)
    if not carries_parts(output):
        raise LeakError("no output carries parts: it does not depend on the inputs, or they leaked")
    return Decomposition(
        output,
        layout,
        recorder.layers,
        session.records,
        session.coverage,
        session.tape,
        bilinear == "bias",
    )


def decompose_onward(
    function: Callable[[Tensor], Any],
    total: Tensor,
    parts: Mapping[str, Tensor],
    variant: str | Variant = "identity-ratio",
    *,
    bias: Tensor | None = None,
    extras: Mapping[str, Sequence[Tensor]] | None = None,
    root: nn.Module | None = None,
    keep_frozen: bool = False,
) -> Decomposition:
    """Goes on from an intermediate tensor whose parts are known already.

    Args:
        function: what comes after, called as ``function(total)``.
        total: the intermediate tensor, any shape.
        parts: each modality's part of it, same shape.
        variant: linearisation rules.
        bias: the bias part, zero if not given.
        extras: for each modality, other parts of the same shape that ride along.
        root, keep_frozen: as in :func:`decompose`.

    Raises:
        NoRuleError, LeakError: as in :func:`decompose`.
    """
    layout = Layout(tuple(parts), {k: len(v) for k, v in (extras or {}).items()})
    stack = [*parts.values(), *(x for name in parts for x in (extras or {}).get(name, ()))]
    rows = layout.all_rows if bias is not None else layout.all_rows[:-1]
    stack += [bias] if bias is not None else []
    root = root if root is not None else find_root(function)
    variants = VariantByModule(parse_variant(variant), None, root)
    session = Session(layout, variants, root=root, keep_frozen=keep_frozen)
    with torch.no_grad():
        x = DecomposedTensor.wrap(total, torch.stack(stack), rows)
        session.borrow(x)
        with session.open():
            output = function(x)
            session.refuse_hidden_writes("the output", output)
    return Decomposition(output, layout, {}, session.records, session.coverage, session.tape)


def decompose_bias(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    variant: str | Variant,
    products: int = 0,
) -> Decomposition:
    """The bias part (with the interaction), without the modalities' parts: two maps, not M + 2.

    Args:
        function, inputs: as in :func:`decompose`. Modalities whose input is all zero are absent:
            they have no parts.
        variant: linearisation rules that leave all constants to the bias, and in which it is no
            modality's business (no activation splits).
        products: through how many products of decomposed tensors the modalities' parts are needed
            (:func:`~.frozen.products` of a tape of the same function).

    Returns:
        A decomposition whose ``total`` and ``bias`` count; its modalities' parts are left out.

    Raises:
        LeakError: as in :func:`decompose`; also where it depends on parts that were left out how
            a write in place reaches views.
    """
    layout = Layout(tuple(inputs))
    root = find_root(function)
    variants = VariantByModule(parse_variant(variant), None, root)
    session = Session(layout, variants, root=root, forgetting=Forgetting(layout, products))
    with torch.no_grad():
        lifted = {
            name: lift(layout, name, tree)
            if products and any(bool(leaf.any()) for leaf in leaves(tree))
            else map_tensors(_without_parts, tree)
            for name, tree in inputs.items()
        }
        session.borrow(lifted)
        with session.open():
            output = function(**lifted)
    return Decomposition(output, layout, {}, session.records, session.coverage, None)


def _without_parts(leaf: Tensor) -> Tensor:
    return DecomposedTensor.wrap(leaf, leaf.new_zeros((0, *leaf.shape)), ())


def parse_variant(variant: str | Variant) -> Variant:
    try:
        return Variant.parse(variant)
    except ValueError as error:
        raise InputError(str(error)) from None


def names_of(inputs: Any) -> tuple[str, ...]:
    """The modalities, in order.

    Raises:
        InputError: inputs that are not by name.
    """
    if not isinstance(inputs, Mapping):
        given = type(inputs).__name__
        raise InputError(
            f"inputs is a {given}; expected a dict that gives each modality, by the name of the "
            'function\'s argument, its tensors, such as {"camera": ..., "radar": ...}'
        )
    for name in inputs:
        if not isinstance(name, str):
            raise InputError(f"inputs has the key {name!r}; expected names of arguments")
    return tuple(inputs)


def lift(layout: Layout, modality: str, tree: Any, extras: Sequence[Any] = ()) -> Any:
    """A modality's input as decomposed tensors: its own part is all of it, the rest zero.

    Args:
        layout: rows of the stack.
        modality: whose input this is.
        tree: a tensor or nested dicts and lists of tensors.
        extras: alternatives of the same structure and shapes.

    Raises:
        InputError: a leaf that is not a finite floating tensor, or extras that do not match.
    """
    for path, leaf in named_leaves(tree):
        _require_leaf(leaf, f"input {modality!r}{path}")
    others = [_leaves_like(extra, paths(tree), modality, i) for i, extra in enumerate(extras)]
    rows = (layout.modalities.index(modality), *layout.extra_rows(modality))
    lifted = [
        _lift_leaf(leaf, [o[i] for o in others], rows, f"{modality!r}")
        for i, leaf in enumerate(leaves(tree))
    ]
    return with_leaves(tree, lifted)


def _require_leaf(leaf: Any, where: str) -> None:
    if not isinstance(leaf, Tensor) or not leaf.dtype.is_floating_point:
        what = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
        raise InputError(
            f"{where}: expected a floating-point tensor, got {what}; pass what is not a modality "
            "in constants="
        )
    if bad := not_finite(leaf):
        raise InputError(
            f"{where} holds {bad}; expected finite numbers (a mask of -inf belongs in constants=)"
        )


def _leaves_like(extra: Any, structure: list[str], modality: str, index: int) -> list[Any]:
    if paths(extra) != structure:
        raise InputError(f"extra {index} of {modality!r} has another structure than the input")
    return leaves(extra)


def _lift_leaf(leaf: Tensor, extras: list[Tensor], rows: tuple[int, ...], name: str) -> Tensor:
    for i, extra in enumerate(extras):
        found, wanted = _kind(extra), _kind(leaf)
        if found != wanted:
            raise InputError(f"extra {i} of {name} is {found}, the input {wanted}")
    parts = torch.stack([leaf, *extras]) if extras else leaf.unsqueeze(0)
    return DecomposedTensor.wrap(leaf, parts, rows)


def _kind(value: Any) -> str:
    """What a leaf is, for an error message."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"a tensor of shape {tuple(value.shape)}, {value.dtype}, on {value.device}"


class LayerRecorder:
    """Keeps the output parts of chosen modules, in order of execution."""

    def __init__(
        self,
        layers: Iterable[str] | Literal["all"],
        layout: Layout,
        root: nn.Module | None,
        merged: bool = True,
    ):
        self._all = layers == "all"
        names = (layers,) if isinstance(layers, str) else layers
        self._names = frozenset() if self._all else frozenset(names)
        self._layout, self._merged = layout, merged
        self.layers: dict[str, Parts] = {}
        modules = root.named_modules() if root is not None and self._names else ()
        known = {name for name, _ in modules}
        unknown = sorted(self._names - known)
        if unknown:
            raise InputError(_unknown_layers(unknown, known))

    @property
    def wanted(self) -> bool:
        """Whether any layer was asked for."""
        return self._all or bool(self._names)

    def __call__(self, name: str, module: nn.Module, output: Any) -> None:
        if not (self._all or name in self._names):
            return
        count = sum(1 for key in self.layers if key.split("#")[0] == name)
        key = f"{name}#{count + 1}" if count else name
        self.layers[key] = Parts(map_tensors(_snapshot, output), self._layout, self._merged)


def _snapshot(x: Tensor) -> Tensor:
    """A copy that later in-place operations do not change."""
    if not isinstance(x, DecomposedTensor):
        return x.clone()
    return DecomposedTensor.wrap(x.total.clone(), x.parts.clone(), x.rows)


def _unknown_layers(unknown: list[str], known: set[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(unknown[0], sorted(known), n=3)
    hint = f"; near: {', '.join(near)}" if near else ""
    return f"unknown layer {unknown[0]!r}{hint}"
