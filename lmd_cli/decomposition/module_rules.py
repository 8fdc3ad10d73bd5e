"""Settings of a network's modules by name: other rules than the variant's, and modules that
may make constants of what carries parts."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase

from torch import nn

from lmd_cli.decomposition.errors import InputError
from lmd_cli.decomposition.tracing.modules import known_modules
from lmd_cli.decomposition.variant import COALITIONS, Variant

ModuleRules = Mapping[str, Mapping[str, str]]

#: Rules that hold for a network whenever it is decomposed; kept beside it, not on it.
_STANDING: weakref.WeakKeyDictionary[nn.Module, ModuleRules] = weakref.WeakKeyDictionary()
#: Modules that may make constants whenever their network is decomposed.
_PLAIN: weakref.WeakKeyDictionary[nn.Module, frozenset[str]] = weakref.WeakKeyDictionary()


def set_module_rules(root: nn.Module, rules: ModuleRules) -> None:
    """Rules for every later decomposition of ``root`` that names none of its own.

    Raises:
        InputError: a pattern that matches no module, an unknown field or value.
    """
    VariantByModule(Variant(), rules, root)
    _STANDING[root] = {pattern: dict(changes) for pattern, changes in rules.items()}


def module_rules(root: nn.Module | None) -> ModuleRules:
    """What :func:`set_module_rules` was given; nothing if it was not called."""
    return {} if root is None else _STANDING.get(root, {})


def set_plain_modules(root: nn.Module, names: Iterable[str]) -> None:
    """Modules that may make constants of what carries parts in every later decomposition of
    ``root``, beside those that it names itself.

    Raises:
        InputError: a name or pattern that matches no module.
    """
    _PLAIN[root] = known_modules(names, root, "plain_modules")


def plain_modules_of(root: nn.Module | None) -> frozenset[str]:
    """What :func:`set_plain_modules` was given; nothing if it was not called."""
    return frozenset() if root is None else _PLAIN.get(root, frozenset())


class VariantByModule:
    """The variant that holds in each module.

    Args:
        variant: where no pattern matches.
        rules: pattern to fields, such as ``{"decoder.layer3.*": {"activation": "taylor"}}``; those
            of :func:`set_module_rules` if none. A pattern is matched against the qualified name of
            the innermost module that runs (``*`` matches dots too: all that is inside; an empty
            one and ``(root)`` are the root); of several that match, later ones win.
        root: the module that names are relative to.

    Raises:
        InputError: no variant of this name, a pattern that matches no module, an unknown field or
            value.
    """

    def __init__(
        self,
        variant: str | Variant,
        rules: ModuleRules | None = None,
        root: nn.Module | None = None,
    ):
        try:
            self.base = Variant.parse(variant)
        except ValueError as error:
            raise InputError(str(error)) from None
        self.rules = dict(module_rules(root) if rules is None else rules)
        self._known: dict[str, Variant] = {}
        known_modules(self.rules, root, "rules")
        for pattern, changes in self.rules.items():
            _changed(self.base, pattern, changes)

    @property
    def activations(self) -> set[str]:
        """The activation rules that hold anywhere."""
        changed = {changes.get("activation") for changes in self.rules.values()} - {None}
        return {self.base.activation, *map(str, changed)}

    def at(self, name: str) -> Variant:
        """The variant in the module of this qualified name."""
        if name not in self._known:
            variant = self.base
            for pattern, changes in self.rules.items():
                if fnmatchcase(name, pattern) or fnmatchcase(name or "(root)", pattern):
                    variant = _changed(variant, pattern, changes)
            self._known[name] = variant
        return self._known[name]


def _changed(variant: Variant, pattern: str, changes: Mapping[str, str]) -> Variant:
    known = [field.name for field in fields(Variant)]
    for field in changes:
        if field not in known:
            raise InputError(f"rules: {pattern!r} sets {field!r}; there are {', '.join(known)}")
    if COALITIONS in (variant.activation, changes.get("activation")):
        raise InputError(
            f"rules: {pattern!r}: coalitions holds for the whole network and leaves no rule open; "
            "leave rules out, or take another variant"
        )
    try:
        return replace(variant, **changes)
    except ValueError as error:
        raise InputError(f"rules: {pattern!r}: {error}") from None
