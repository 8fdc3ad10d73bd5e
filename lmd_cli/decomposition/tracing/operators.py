"""What a dispatched operator does with its arguments, read off its schema once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lmd_cli.decomposition.older_torch import can_decompose
from lmd_cli.decomposition.registry import aten

#: Share their input's memory though their schema does not say so.
_UNDECLARED_VIEWS = {
    *("_unsafe_view", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "lift"),
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


@dataclass(frozen=True)
class Operator:
    """One overload.

    Attributes:
        function: it.
        names: of its arguments, in order; ``self`` is called ``input``.
        written: names of the arguments whose elements it writes to.
        view: its results share memory with its first argument.
        factory: it reads no element.
    """

    function: Any

    @cached_property
    def name(self) -> str:
        """Without library and overload."""
        return str(self.function._schema.name).rpartition("::")[2]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(_name(a.name) for a in self.function._schema.arguments)

    @cached_property
    def schema_names(self) -> dict[str, str]:
        """The schema's name of each argument."""
        arguments = self.function._schema.arguments
        return dict(zip(self.names, (a.name for a in arguments), strict=True))

    @cached_property
    def written(self) -> tuple[str, ...]:
        if self.name in _METADATA_WRITES:
            return ()
        arguments = self.function._schema.arguments
        return tuple(
            _name(a.name)
            for a in arguments
            if a.alias_info is not None and a.alias_info.is_write and a.name not in _STATE
        )

    @cached_property
    def metadata_write(self) -> bool:
        """It changes what describes its first argument."""
        return self.name in _METADATA_WRITES

    @cached_property
    def view(self) -> bool:
        if self.name in _UNDECLARED_VIEWS:
            return True
        returns = self.function._schema.returns
        return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)

    @cached_property
    def factory(self) -> bool:
        return self.name in _FACTORIES

    @cached_property
    def gives_tensors(self) -> bool:
        """All its results are tensors."""
        return all(str(r.type) == "Tensor" for r in self.function._schema.returns)

    @cached_property
    def gives_numbers(self) -> bool:
        """Its result is a number."""
        returns = [str(r.type) for r in self.function._schema.returns]
        return returns[:1] in (["number"], ["bool"], ["int"], ["float"])

    @cached_property
    def draws(self) -> bool:
        """It draws random numbers, whatever its arguments; the others' rules look at them."""
        tagged = torch.Tag.nondeterministic_seeded in self.function.tags
        return tagged and _DROPOUT.isdisjoint(self.names)

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
        found = [operator(getattr(packet, name)) for name in packet.overloads()]
        wanted = self._signature(() if inplace else self.written)
        exact = (o for o in found if not o.written and o._signature() == wanted)
        alike = (o for o in found if inplace and o.overload == self.overload)
        return next(iter((*exact, *alike)), None)

    @property
    def overload(self) -> str:
        return str(self.function._overloadname)

    def _signature(self, without: tuple[str, ...] = ()) -> list[tuple[str, str]]:
        """Names and types of its arguments."""
        arguments = zip(self.names, self.function._schema.arguments, strict=True)
        return [(name, str(a.type)) for name, a in arguments if name not in without]

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments that were given, by name."""
        given = dict(zip(self.names, args, strict=False))
        for name, value in kwargs.items():
            given[_name(name)] = value
        return given


def _name(name: str) -> str:
    return {"self": "input", "from": "from_"}.get(name, name)


_KNOWN: dict[Any, Operator] = {}


def operator(function: torch._ops.OpOverload) -> Operator:
    """What is known of an overload."""
    found = _KNOWN.get(function)
    if found is None:
        found = _KNOWN[function] = Operator(function)
    return found
