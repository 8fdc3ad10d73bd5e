"""``decompose``: a prediction split exactly into modalities and bias."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lmd_cli.decomposition import rules as _rules  # noqa: F401  (registers the rules)
from lmd_cli.decomposition.capture import recording
from lmd_cli.decomposition.coalitions import UNDEFINED, CoalitionLayout
from lmd_cli.decomposition.errors import ConservationError, InputError, LeakError
from lmd_cli.decomposition.inputs import lifted, names_of
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.linearised.program import Program
from lmd_cli.decomposition.maps import Stack
from lmd_cli.decomposition.module_rules import ModuleRules, VariantByModule
from lmd_cli.decomposition.pytrees import leaves, map_leaves, map_tensors
from lmd_cli.decomposition.result import DecomposedTensor, Decomposition, Parts, decomposed_leaves
from lmd_cli.decomposition.tracing.audit import clean_stack, is_broken
from lmd_cli.decomposition.tracing.coalitions import CoalitionSession
from lmd_cli.decomposition.tracing.modules import find_root, near
from lmd_cli.decomposition.tracing.reduced import BiasSession, MapsSession
from lmd_cli.decomposition.tracing.session import Session
from lmd_cli.decomposition.variant import COALITIONS, Variant


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
    keep_maps: bool = False,
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
        extras: for each modality, alternatives of the same structure as its input, taken through
            the same maps as ``inputs`` (linearised there); their parts are ``result.extras``.
        layers: qualified module names (or ``"all"``) whose output's parts are wanted too.
        root: the module that names are relative to; guessed from ``function`` if not given.
        audit: record conservation and shares at every operation (``result.operations``), and
            return also what does not sum to the total; ``"raise"``: an operation that breaks
            conservation is an error that names it.
        keep_maps: keep the linearised maps (``result.program``).
        plain_modules: names of modules (``*`` is a wildcard, ``(root)`` the root) that may make
            constants of what carries parts, beside those that were set for the root
            (:func:`set_plain_modules`).
        grad: let gradients flow through the parts.
        bilinear: where products of different modalities are reported: in ``result.bias`` (the
            paper's choice), or in ``result.interaction`` alone. No other part depends on it.
        rules: other fields of the variant for modules whose qualified name matches a pattern:
            ``{"decoder.layer3.*": {"activation": "taylor"}}``; those that were set for the root
            (:func:`set_module_rules`) if none.

    Raises:
        InputError: inputs that are not finite floating tensors by name, unknown layers, a bad
            variant name, rules for no module.
        ConservationError: the parts of the output do not sum to it; with ``audit="raise"``, those
            of any operation.
        NoRuleError: an operation without a rule; it names the operation and its module.
        LeakError: an operation that would drop parts silently.
    """
    if bilinear not in ("bias", "interaction"):
        raise InputError(f"bilinear must be 'bias' or 'interaction', not {bilinear!r}")
    counts = {k: len(v) for k, v in (extras or {}).items()}
    root, merged = root if root is not None else find_root(function), bilinear == "bias"
    session = _session(
        names_of(inputs),
        counts,
        variant,
        rules,
        root=root,
        audit=audit,
        program=Program() if keep_maps else None,
        plain_modules=plain_modules,
        grad=grad,
    )
    layout, kept = session.layout, _keep_layers(session, layers, root, merged)
    with nullcontext() if grad else torch.no_grad():
        parts = lifted(layout, inputs, extras or {})
        tree = trace(session, function, inputs, parts, constants or {})
    if not decomposed_leaves(tree):
        raise LeakError("no output carries parts: it does not depend on the inputs, or they leaked")
    if audit is not True:  # the records show where
        _require_conserved(tree, session)
    return _result(session, tree, kept, merged)


def _session(
    names: tuple[str, ...],
    extras: Mapping[str, int],
    variant: str | Variant,
    *given: Any,
    **options: Any,
) -> Session:
    """A run under a variant, with the rows that it needs."""
    if VariantByModule(variant, {}).base.activation == COALITIONS:
        return CoalitionSession(CoalitionLayout(names, extras), variant, *given, **options)
    return Session(Layout(names, extras), variant, *given, **options)


def trace(
    session: Session,
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    parts: Mapping[str, list[Stack]],
    constants: Mapping[str, Any],
) -> Any:
    """The function's output, with parts where it has them. It gets copies of the inputs, which it
    may write to.

    Args:
        parts: of each input's tensors, in order.
    """
    given = {name: map_leaves(torch.clone, tree) for name, tree in inputs.items()}
    for name, tree in given.items():
        for copy, (stack, rows) in zip(leaves(tree), parts[name], strict=True):
            session.give(copy, stack, rows).shared = True
    if session.program is not None:
        for name, tree in given.items():
            session.program.inputs[name] = [session.place_of(t) for t in leaves(tree)]
    with session.open():
        output = function(**given, **constants)
        if isinstance(output, Generator):
            output = list(output)
        session.returned(function, given, output)
    if session.program is not None:

        def end(value: Any) -> Any:
            return session.place_of(value) if session.carries(value) else value

        session.program.output = map_leaves(end, output)
    return map_tensors(lambda t: _with_parts(session, t), output)


def _result(
    session: Session, tree: Any, layers: Mapping[str, Parts] | None = None, merged: bool = True
) -> Decomposition:
    program, variant = session.program, session.base_variant.name
    session.close()
    return Decomposition(
        tree,
        session.layout.outer,
        layers or {},
        session.records,
        session.coverage,
        program,
        merged,
        variant,
    )


_NOT_THE_SUM = (
    'the parts of the output do not sum to it: a rule is wrong (audit="raise" names it), or a '
    "tensor was written to past its parts, through numpy or another alias of its memory; write to "
    "a .clone() instead"
)
_NOT_FINITE = (
    'the parts of the output are not finite: a rule is wrong (audit="raise" names it), or products '
    "of features with gates of their own (x * sigmoid(x) by hand) grew like powers; call torch's "
    "function for both (F.silu), or take a variant that ends with -taylor-frozen: they grow less"
)


def _require_conserved(tree: Any, session: Session) -> None:
    """The parts of the output must sum to it: writes that nothing can see show here."""
    for x in decomposed_leaves(tree):
        stack, cuda = clean_stack(x.parts, x.rows, session.layout.outer), torch.backends
        rounded = x.total.is_cuda and (cuda.cuda.matmul.allow_tf32 or cuda.cudnn.allow_tf32)
        brought = 1e-3 if rounded else 1e-5
        if recording(x.total) or not is_broken(x.total, stack, brought, session.types):
            continue
        finite = bool(torch.isfinite(stack[:, torch.isfinite(x.total)]).all())
        undefined = UNDEFINED if isinstance(session, CoalitionSession) else _NOT_FINITE
        raise ConservationError(_NOT_THE_SUM if finite else undefined)


def _keep_layers(
    session: Session, layers: Iterable[str] | Literal["all"], root: nn.Module | None, merged: bool
) -> dict[str, Parts]:
    """The output parts of chosen modules, in order of execution, as they come while it runs."""
    kept: dict[str, Parts] = {}
    names = frozenset((layers,) if isinstance(layers, str) else layers)
    known = dict(root.named_modules() if root is not None and names else ())
    for name in sorted(names.difference(known)) if layers != "all" else ():
        raise InputError(f"unknown layer {name!r}{near(name, known)}")

    def keep(name: str, module: nn.Module, output: Any) -> None:
        if layers != "all" and name not in names:
            return
        count = sum(1 for key in kept if key.split("#")[0] == name)
        tree = map_tensors(lambda t: _with_parts(session, t, copy=True), output)
        kept[f"{name}#{count + 1}" if count else name] = Parts(tree, session.layout.outer, merged)

    if names:
        session.on_layer = keep
    return kept


def _with_parts(session: Session, t: Tensor, copy: bool = False) -> Tensor | DecomposedTensor:
    """A tensor with its parts; a copy that later writes do not change."""
    total = t.clone() if copy else t
    if not session.carries(t):
        return total
    stack, rows = session.layout.reported(*session.parts(t))
    return DecomposedTensor(total, stack.clone() if copy else stack, rows)


def decompose_onward(
    function: Callable[[Tensor], Any],
    total: Tensor,
    parts: Mapping[str, Tensor],
    variant: str | Variant = "identity-ratio",
    *,
    bias: Tensor | None = None,
    extras: Mapping[str, Sequence[Tensor]] | None = None,
    root: nn.Module | None = None,
    keep_maps: bool = False,
) -> Decomposition:
    """Goes on from an intermediate tensor whose parts are known already.

    Args:
        function: what comes after, called as ``function(total)``.
        total: the intermediate tensor, any shape.
        parts: each modality's part of it, same shape.
        variant: linearisation rules.
        bias: the bias part, zero if not given.
        extras: for each modality, other parts of the same shape, taken through the same maps.
        root, keep_maps: as in :func:`decompose`.

    Raises:
        NoRuleError, LeakError: as in :func:`decompose`.
    """
    counts = {k: len(v) for k, v in (extras or {}).items()}
    root = root if root is not None else find_root(function)
    program = Program() if keep_maps else None
    session = _session(tuple(parts), counts, variant, root=root, program=program)
    layout, given = session.layout, extras or {}
    riding = [x for name in parts for x in given.get(name, ()) for _ in range(layout.copies)]
    stack = [*parts.values(), *riding, *([] if bias is None else [bias])]
    with torch.no_grad():
        start = {"x": [(torch.stack(stack), layout.all_rows[: len(stack)])]}
        tree = trace(session, lambda x: function(x), {"x": total}, start, {})
    return _result(session, tree)


def decompose_bias(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    variant: str | Variant,
    products: int = 0,
) -> Decomposition:
    """A decomposition that is asked for its total and bias (with the interaction) only.

    Args:
        function, inputs: as in :func:`decompose`. Modalities whose input is all zero are absent:
            they have no parts.
        variant: linearisation rules that give all constants to the bias.
        products: how many products of the function the parts are followed through (see
            :func:`.linearised.program.products_of_features`); behind them the bias goes alone.
    """
    layout = Layout(tuple(inputs))
    session = BiasSession(layout, variant, root=find_root(function), products=products)
    with torch.no_grad():
        parts = lifted(layout, inputs)
        for name, own in parts.items():
            if not any(bool(stack.any()) for stack, _ in own):
                parts[name] = [(stack, (layout.bias,)) for stack, _ in own]
        tree = trace(session, function, inputs, parts, {})
    return _result(session, tree)


def recorded_program(
    function: Callable[..., Any], inputs: Mapping[str, Any], variant: str
) -> Program:
    """The linearised network at ``inputs``, whose maps no part goes through yet.

    ``variant`` is of rules that look at no parts (no activation splits); the errors are those of
    :func:`decompose`.
    """
    program = Program()
    session = MapsSession(
        Layout(tuple(inputs)), variant, {}, root=find_root(function), program=program
    )
    with torch.no_grad():
        unknown: dict[str, list[Stack]] = {
            name: [(torch.zeros_like(leaf).unsqueeze(0), (0,)) for leaf in leaves(tree)]
            for name, tree in inputs.items()
        }
        trace(session, function, inputs, unknown, {})
    session.close()
    return program
