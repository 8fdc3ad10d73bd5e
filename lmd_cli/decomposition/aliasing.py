"""Who shares memory with whom, so that a write in place reaches every view or is refused."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import LeakError
from lmd_cli.decomposition.tensor import DecomposedTensor, put_rows

#: Dead entries are dropped when the list has doubled, but not below this length.
_SHORT = 256


def address(t: Tensor) -> int:
    """Where a tensor's storage lies; 0 if it has no elements."""
    return t.untyped_storage().data_ptr()


class Memory:
    """The decomposed tensors of one run that are alive, and the storages lent by the caller.

    Args:
        where: describes the place in the user's model, for error messages.
    """

    def __init__(self, where: Callable[[], str]):
        self._where = where
        self._live: list[weakref.ref[DecomposedTensor]] = []
        self._next_sweep = _SHORT
        self._lent: set[int] = set()

    def remember(self, x: DecomposedTensor) -> DecomposedTensor:
        """Notes a tensor that may share memory with others."""
        self._live.append(weakref.ref(x))
        if len(self._live) > self._next_sweep:
            self._live = [ref for ref in self._live if ref() is not None]
            self._next_sweep = max(_SHORT, 2 * len(self._live))
        return x

    def alive(self) -> list[DecomposedTensor]:
        """All of them."""
        found = (ref() for ref in self._live)
        return list({id(x): x for x in found if x is not None}.values())

    def borrow(self, x: DecomposedTensor) -> None:
        """Notes an input of the caller's, which must not be written to."""
        self._lent.add(address(x.total))
        self.remember(x)

    def forget(self) -> None:
        """Ends the run."""
        self._live.clear()
        self._lent.clear()

    def prepare_write(self, x: DecomposedTensor) -> None:
        """Before a write to ``x``: moves it and its views out of memory that others read.

        That is the caller's memory, and the memory of parts that a tensor with another total uses
        (a copy of the total whose parts needed no copy, or a concatenation not yet carried out).

        Raises:
            LeakError: with gradients, views cannot be moved.
        """
        family = self._family(x)
        lent = address(x.total) in self._lent
        if not lent and not self._strangers(x, family):
            return
        if torch.is_grad_enabled():
            self._clone_alone(x, family)
            return
        totals: dict[int, torch.UntypedStorage] = {}
        parts: dict[int, torch.UntypedStorage] = {}
        for member in family:
            total = _moved(member.total, totals) if lent else member.total
            member.replace(total, _moved(member.parts, parts), member.rows)

    def assign(self, x: DecomposedTensor, parts: Tensor, rows: tuple[int, ...]) -> None:
        """After a write to ``x.total``: gives ``x`` and its views the new parts.

        Raises:
            LeakError: a view of ``x`` does not share the parts' memory.
        """
        family = self._family(x)
        if len(family) == 1:
            x.replace(x.total, parts, rows)
            return
        if not _share_rows(family) or (rows != x.rows and not _add_rows(family, rows)):
            raise LeakError(
                f"an in-place operation {self._where()} writes to a tensor that has views, whose "
                "parts are stored apart; use the out-of-place form there"
            )
        if parts is not x.parts:
            x.parts.copy_(parts)
        for member in family:
            member.replace(member.total, member.parts, rows)

    def _family(self, x: DecomposedTensor) -> list[DecomposedTensor]:
        """``x`` and the live tensors whose totals share its storage."""
        key = address(x.total)
        live = (ref() for ref in self._live) if key else ()
        others = [t for t in live if t is not None and t is not x and address(t.total) == key]
        return [x, *{id(t): t for t in others}.values()]

    def _strangers(self, x: DecomposedTensor, family: list[DecomposedTensor]) -> bool:
        """Whether a tensor outside the family reads the memory of the family's parts."""
        inside = {id(member) for member in family}
        mine = {a for member in family for a in member.part_addresses()}
        live = (ref() for ref in self._live)
        return any(
            t is not None and id(t) not in inside and not mine.isdisjoint(t.part_addresses())
            for t in live
        )

    def _clone_alone(self, x: DecomposedTensor, family: list[DecomposedTensor]) -> None:
        if len(family) > 1:
            raise LeakError(
                f"an in-place operation {self._where()} writes to a view of an input while "
                "gradients are recorded; use the out-of-place form there"
            )
        x.replace(x.total.clone(), x.parts.clone(), x.rows)


def _share_rows(family: list[DecomposedTensor]) -> bool:
    """Whether all have the same rows, in one storage."""
    return len({(member.rows, address(member.parts)) for member in family}) == 1


def _add_rows(family: list[DecomposedTensor], rows: tuple[int, ...]) -> bool:
    """Gives tensors that share their rows more of them, in a new storage that they share too.

    Returns:
        Whether that was possible: it needs a storage of whole rows, one after the other.
    """
    stack, old = family[0].parts, family[0].rows
    if not old:
        return False
    whole = stack.new_empty(0).set_(stack.untyped_storage())  # (elements of the storage,)
    length = whole.numel() // len(old)
    apart = any(m.parts.stride(0) != length and len(old) > 1 for m in family)
    beyond = any(m.parts.storage_offset() >= length for m in family)
    if torch.is_grad_enabled() or apart or beyond or length * len(old) != whole.numel():
        return False
    grown = stack.new_zeros(len(rows), length)
    put_rows(grown, [rows.index(row) for row in old], whole.view(len(old), length))
    for member in family:
        size, steps = (len(rows), *member.total.shape), (length, *member.parts.stride()[1:])
        view = grown.as_strided(size, steps, member.parts.storage_offset())
        member.replace(member.total, view, rows)
    return True


def _moved(t: Tensor, copies: dict[int, torch.UntypedStorage]) -> Tensor:
    """The same view of a copy of its storage; views of one storage move together."""
    storage = t.untyped_storage()
    if storage.data_ptr() not in copies:
        copies[storage.data_ptr()] = storage.clone()
    copy = copies[storage.data_ptr()]
    return t.new_empty(0).set_(copy, t.storage_offset(), t.shape, t.stride())  # type: ignore[call-overload]
