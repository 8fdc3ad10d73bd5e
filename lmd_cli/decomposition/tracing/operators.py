"""What a dispatched operator does with its arguments, read off its schema once."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

import torch

from lmd_cli.decomposition.older_torch import can_decompose
from lmd_cli.decomposition.pytrees import map_tensors
from lmd_cli.decomposition.registry import aten

#: Share their input's memory though their schema does not say so.
_UNDECLARED_VIEWS = {
    *("_unsafe_view", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "lift")
}
#: Write to what describes a tensor (its shape, its strides), not to its elements.
_METADATA_WRITES = {
    *("unsqueeze_", "squeeze_", "transpose_", "t_", "swapaxes_", "swapdims_", "as_strided_"),
    *("set_", "requires_grad_", "rename_", "detach_"),
}
#: Arguments by which random numbers may be left out.
_DROPOUT = {"dropout_p", "dropout", "training"}
#: Arguments that are state, not results: nothing of them reaches the output in evaluation mode.
_STATE = {"noise", "running_mean", "running_var"}
#: Make a tensor of another's shape and type; no value of it is read.
_FACTORIES = {
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("randint_like", "new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided"),
    *("sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "is_same_size"),
    *("_has_compatible_shallow_copy_type", "is_pinned", "record_stream"),
}
#: Make memory without writing to it.
_ALLOCATING = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
#: Names of arguments that Python reserves, or that methods use.
_RENAMED = {"self": "input", "from": "from_"}


class Operator:
    """One overload.

    Attributes:
        name: without library and overload.
        names: of its arguments, in order; ``self`` is called ``input``. ``schema_names`` gives the
            schema's name of each.
        metadata_write: it changes what describes its first argument, and no element.
        written: names of the arguments whose elements it writes to.
        view: its results share memory with its first argument.
        factory: it reads no element. ``allocates``: nor does it write one.
        draws: it draws random numbers, whatever its arguments; the others' rules look at them.
    """

    def __init__(self, function: Any):
        schema = function._schema
        results = [str(r.type) for r in schema.returns]
        self.function, self.name = function, str(schema.name).rpartition("::")[2]
        self.schema_names = {_name(a.name): a.name for a in schema.arguments}
        self.names = tuple(self.schema_names)
        self._positional = tuple(_name(a.name) for a in schema.arguments if not a.kwarg_only)
        self.metadata_write = self.name in _METADATA_WRITES
        writes = (a for a in schema.arguments if a.alias_info and a.alias_info.is_write)
        written = (_name(a.name) for a in writes if a.name not in _STATE)
        self.written = () if self.metadata_write else tuple(written)
        shares = any(r.alias_info and not r.alias_info.is_write for r in schema.returns)
        self.view = shares or self.name in _UNDECLARED_VIEWS
        self.factory = self.name in _FACTORIES
        self.allocates = self.name in _ALLOCATING
        self.gives_tensors = all(result == "Tensor" for result in results)
        self.gives_numbers = results[:1] in (["number"], ["bool"], ["int"], ["float"])
        random = torch.Tag.nondeterministic_seeded in function.tags
        self.draws = random and _DROPOUT.isdisjoint(self.names)

    @cached_property
    def composite(self) -> bool:
        """It is made of other operators, which its own implementation calls."""
        return can_decompose(self.function)

    @cached_property
    def functional(self) -> Operator | None:
        """The operator that gives in new memory what this one writes."""
        inplace = self.name.endswith("_") and not self.name.endswith("__")
        packet = aten(self.name[:-1]) if inplace else self.function.overloadpacket
        if packet is None:
            return None
        overloads = [operator(getattr(packet, name)) for name in packet.overloads()]
        wanted = self._signature(() if inplace else self.written)
        exact = (o for o in overloads if not o.written and o._signature() == wanted)
        overload = self.function._overloadname
        alike = (o for o in overloads if inplace and o.function._overloadname == overload)
        return next(iter((*exact, *alike)), None)

    def _signature(self, without: tuple[str, ...] = ()) -> list[tuple[str, str]]:
        """Names and types of its arguments."""
        arguments = zip(self.names, self.function._schema.arguments, strict=True)
        return [(name, str(a.type)) for name, a in arguments if name not in without]

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments that were given, by name."""
        given = dict(zip(self.names, args, strict=False))
        if kwargs:
            given |= {_name(name): value for name, value in kwargs.items()}
        return given

    def call(self, given: dict[str, Any]) -> Any:
        """Its result for arguments by name."""
        if tuple(given) == self._positional[: len(given)]:
            return self.function(*given.values())  # a third faster than by name
        names = self.schema_names
        return self.function(**{names.get(name, name): value for name, value in given.items()})

    def rewritten(self, given: dict[str, Any]) -> list[Any]:
        """What it would write to its arguments, in copies of them."""
        written = {name: given[name] for name in self.written if name in given}
        copies = map_tensors(torch.clone, written)
        self.call({**given, **copies})
        return list(copies.values())


def _name(name: str) -> str:
    return _RENAMED.get(name, name)


@cache
def operator(function: torch._ops.OpOverload) -> Operator:
    """What is known of an overload."""
    return Operator(function)


def functional_of(function: Any) -> Any:
    """The function that gives in new memory what an overload writes; others as they are."""
    if not isinstance(function, torch._ops.OpOverload):
        return function
    return (operator(function).functional or operator(function)).function
