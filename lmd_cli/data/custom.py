"""Adapts a user's data set to the interface of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.data.interventions import RemovalSettings, Removed
from lmd_cli.data.regions import Region
from lmd_cli.data.sample import Sample
from lmd_cli.errors import ContractError, DataError
from lmd_cli.runtime.printable import one_line

#: What an item may be.
EXPECTED = "a dict of tensors by name, or an lmd_cli.data.Sample"


class CustomSamples:
    """Any map-style data set with the attributes that the rest of the program reads.

    Args:
        dataset: has ``len`` and gives items; optionally ``tokens``, ``scenes``, ``descriptions``
            (a string for each item), ``collate(items)`` (a batch of a list of items),
            ``pictures(sample)`` and ``boxes_on_map(index)``.
        what: it, for messages.
        guard: a context that turns the data set's exceptions into messages, given what was done.

    Raises:
        ContractError: no ``len``, no items, or names that do not fit them.
    """

    dataroot = None
    absent_scenes: Sequence[str] = ()

    def __init__(self, dataset: Any, what: str, guard: Callable[[str], Any]) -> None:
        self._dataset, self._what, self._guard = dataset, what, guard
        for method in ("__len__", "__getitem__"):
            if not hasattr(dataset, method):
                given = type(dataset).__name__
                raise ContractError(
                    f"{what} gave a {given} without {method}; expected a map-style data set"
                )
        with guard(f"the length of {what}"):
            self._length = len(dataset)
        if self._length == 0:
            raise ContractError(f"{what} gave an empty data set; expected at least one sample")
        digits = len(str(self._length - 1))
        self.tokens = self._names("tokens", [f"{i:0{digits}}" for i in range(self._length)])
        broken = next((token for token in self.tokens if not one_line(token)), None)
        if broken is not None:
            raise ContractError(f"{what}: token {broken!r} is no single line of text")
        self._index = {token: i for i, token in enumerate(self.tokens)}
        if len(self._index) < self._length:
            twice = next(t for i, t in enumerate(self.tokens) if self._index[t] != i)
            raise ContractError(f"{what}: token {twice!r} is there twice; expected different ones")
        self.scenes = self._names("scenes", [""] * self._length)
        self.descriptions = self._names("descriptions", [""] * self._length)
        self.scene_names = list(dict.fromkeys(self.scenes))
        self._rows: Sequence[int] = range(self._length)

    def choose(self, rows: Sequence[int]) -> None:
        """Leaves only some samples, by their numbers."""
        self._rows = [self._rows[row] for row in rows]
        for name in ("tokens", "scenes", "descriptions"):
            every = getattr(self, name)
            setattr(self, name, [every[row] for row in rows])
        self._length, self.scene_names = len(rows), list(dict.fromkeys(self.scenes))
        self._index = {token: i for i, token in enumerate(self.tokens)}

    def _names(self, attribute: str, default: list[str]) -> list[str]:
        given = getattr(self._dataset, attribute, None)
        if given is None:
            return default
        names = list(given)
        if len(names) != self._length or not all(isinstance(name, str) for name in names):
            raise ContractError(
                f"{self._what}: {attribute} must be {self._length} strings, one for each item"
            )
        return names

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        """One sample; the tensors of a dict are batched here, by the data set's own ``collate`` if
        it has one.

        Raises:
            DataError: the data set raises something.
            ContractError: an item or batch of a wrong type.
        """
        token = self.tokens[index]
        where = f"{self._what}: item {index} ({token})"
        try:
            with self._guard(where):
                item = self._dataset[self._rows[index]]
        except ContractError as error:  # unreadable data, which an evaluation may skip
            raise DataError(str(error), token=token) from error
        return self._sample(item, index, where)

    def _sample(self, item: Any, index: int, where: str) -> Sample:
        """An item as a sample."""
        token = self.tokens[index]
        if isinstance(item, Sample):
            return item
        tensors = dict(_named_tensors(item, where))
        own = getattr(self._dataset, "collate", None)
        if own is None:
            batch: Any = {name: value[None] for name, value in tensors.items()}
        else:
            with self._guard(f"{self._what}: collate of item {index} ({token})"):
                batch = own([item])
            if not isinstance(batch, Mapping):
                given = type(batch).__name__
                raise ContractError(f"{self._what}: collate gave a {given}; expected a dict")
        return Sample(token, self.scenes[index], dict(batch), batched=True)

    def index_of(self, token: str) -> int:
        """Index of a sample.

        Raises:
            ContractError: there is none of this token.
        """
        if token not in self._index:
            listing = "list the samples with: lmd samples --config CONFIG"
            raise ContractError(f"sample {token} is not in {self._what}; {listing}")
        return self._index[token]

    def missing_files(self) -> dict[str, int]:
        """Nothing is known of files."""
        return {}

    def pictures(self, sample: Sample) -> dict[str, NDArray[np.float32]]:
        """Images by camera, (H, W, 3) in [0, 1], if the data set has any."""
        own = getattr(self._dataset, "pictures", None)
        return {} if own is None else own(sample)

    def boxes_on_map(self, index: int) -> list[Any]:
        """Annotated vehicles, if the data set has any."""
        own = getattr(self._dataset, "boxes_on_map", None)
        return [] if own is None else own(self._rows[index])

    def regions(self, index: int) -> list[Any] | None:
        """Known truth, see :class:`lmd_cli.data.regions.Region`; ``None`` if there is none."""
        own = getattr(self._dataset, "regions", None)
        if own is None:
            return None
        with self._guard(f"{self._what}: regions of item {index} ({self.tokens[index]})"):
            return list(own(self._rows[index]))

    def global_T_ego(self, index: int) -> NDArray[np.float64]:
        """The pose of the frame of predicted boxes, (4, 4); the identity if the data set has none.

        Raises:
            ContractError: the data set's ``global_T_ego`` raises, or gives something else.
        """
        own = getattr(self._dataset, "global_T_ego", None)
        if own is None:
            return np.eye(4)
        where = f"{self._what}: global_T_ego of item {index} ({self.tokens[index]})"
        with self._guard(where):
            pose = np.asarray(own(self._rows[index]), dtype=np.float64)
        turn = pose[:3, :3] if pose.shape == (4, 4) else np.zeros((3, 3))
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-6):
            raise ContractError(f"{where} is no rigid transform; expected a matrix (4, 4)")
        return pose

    @property
    def posed(self) -> bool:
        """Whether the data set knows where the ego frame is."""
        return hasattr(self._dataset, "global_T_ego")

    @property
    def removes(self) -> bool:
        """Whether the data set can take objects out of one modality."""
        return hasattr(self._dataset, "remove")

    def without(
        self, clean: Sample, index: int, region: Region, modality: str, settings: RemovalSettings
    ) -> Removed:
        """A sample without one object in one modality, by the data set's ``remove``; the amount is
        0 where it gives nothing or what was there, else 1.

        Raises:
            ContractError: it raises something, or gives what is no item.
        """
        where = f"{self._what}: remove of {region.token} from {modality} in item {index}"
        with self._guard(where):
            item = self._dataset.remove(self._rows[index], region, modality)
        changed = clean if item is None else self._sample(item, index, where)
        return Removed(changed, 0 if _alike(changed, clean) else 1)


def _alike(one: Sample, other: Sample) -> bool:
    """Whether two samples hold the same tensors, and nothing else that differs."""

    def same(x: Any, y: Any) -> bool:
        both = isinstance(x, Tensor) and isinstance(y, Tensor) and x.dtype == y.dtype
        return x is y or (both and torch.equal(x, y))

    a, b = pytree.tree_leaves(one.tensors), pytree.tree_leaves(other.tensors)
    return one is other or (len(a) == len(b) and all(map(same, a, b)))


def _named_tensors(item: Any, where: str) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(item, Mapping):
        raise ContractError(f"{where} is a {type(item).__name__}; expected {EXPECTED}")
    if not item:
        raise ContractError(f"{where} is empty; expected {EXPECTED}")
    for name, value in item.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            hint = " (torch.from_numpy makes one)" if isinstance(value, np.ndarray) else ""
            kind = type(value).__name__
            raise ContractError(f"{where}: {name!r} is a {kind}; expected a tensor{hint}")
        yield name, value
