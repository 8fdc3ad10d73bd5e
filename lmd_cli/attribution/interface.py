"""The interface that LMD and the attribution methods it is compared with share.

All methods explain the same function ``fuse(**features)`` of a dict of modalities, each a tensor
or nested dicts and lists of tensors. A :class:`ForwardMethod` splits the whole output into maps
that mirror it; a :class:`BackwardMethod` splits numbers that are computed from it; a method may be
both. The modalities and ``bias`` sum to what is explained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.attribution.coalitions import Coalitions
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.errors import ContractError, MethodError

T = TypeVar("T")
Fuse: TypeAlias = Callable[..., Any]
#: For each modality its features, a tensor or a tree of tensors.
Features: TypeAlias = Mapping[str, Any]
#: For each modality and ``bias`` a tree of the output's structure.
Maps: TypeAlias = dict[str, Any]
#: From an output of batch B to (B, n) numbers; linear in the output (a region's mean, say).
Target: TypeAlias = Callable[[Any], Tensor]


class Explainer(Protocol):
    """A method at one operating point."""

    def parts(self, features: Features) -> Maps:
        """Splits ``fuse(**features)``; features other than the operating point's are perturbed
        inputs, which a method that linearises sends through the map of the operating point."""


@runtime_checkable
class ForwardMethod(Protocol):
    """Splits the whole output.

    Attributes:
        name: as on the command line.
    """

    name: str

    def at(self, fuse: Fuse, features: Features) -> Explainer:
        """The method with what it keeps of ``features``, the clean sample."""


@runtime_checkable
class BackwardMethod(Protocol):
    """Splits n numbers at a time.

    Attributes:
        name: as on the command line.
    """

    name: str

    def scores(self, fuse: Fuse, features: Features, target: Target) -> dict[str, Tensor]:
        """For each modality and ``bias``, its share (B, n) of ``target(fuse(**features))``."""


Method: TypeAlias = ForwardMethod | BackwardMethod


def parts(method: Method, fuse: Fuse, features: Features) -> Maps:
    """The parts of the output at ``features``.

    Raises:
        MethodError: the method attributes numbers, not maps.
    """
    return require_maps(method).at(fuse, features).parts(features)


def require_maps(method: Method) -> ForwardMethod:
    """The method, if it splits whole outputs.

    Raises:
        MethodError: it attributes numbers, not maps.
    """
    if not isinstance(method, ForwardMethod):
        raise MethodError(
            f"{method.name} works backwards from single numbers and gives no map of the output; "
            "use scores() (lmd score), or a method that works forwards"
        )
    return method


def scores(method: Method, fuse: Fuse, features: Features, target: Target) -> dict[str, Tensor]:
    """For each modality and ``bias``, its share (B, n) of ``target``, under any method."""
    if isinstance(method, BackwardMethod):
        return method.scores(fuse, features, target)
    return {name: target(tree) for name, tree in parts(method, fuse, features).items()}


def cause(error: Exception) -> BaseException:
    """What the network raised, where a contract error wraps it."""
    return error.__cause__ or error if isinstance(error, ContractError) else error


@contextmanager
def autograd_followed(method: str) -> Iterator[None]:
    """Says which method cannot handle a network that writes where autograd cannot follow.

    Raises:
        MethodError: in place of torch's own error.
    """
    try:
        yield
    except (RuntimeError, ContractError) as error:
        if "inplace" not in str(cause(error)) and "in-place" not in str(cause(error)):
            raise
        raise MethodError(
            f"{method} needs gradients, and the network writes in place where autograd cannot "
            f"follow: {error}"
        ) from error


# -- trees --------------------------------------------------------------------------------


def run(fuse: Fuse, features: Features, absent: frozenset[str] = frozenset()) -> Any:
    """``fuse`` without gradients, on copies that it may write to, some modalities zeroed."""
    if isinstance(fuse, Coalitions):
        return fuse.value(features, absent)
    return Coalitions(fuse, broadcasts=False).value(features, absent)


def once(fuse: Fuse, key: str, features: Features, make: Callable[[], T]) -> T:
    """What ``make`` gives at these features; made once where ``fuse`` has a memory."""
    return fuse.once(key, features, make) if isinstance(fuse, Coalitions) else make()


def remembering(fuse: Fuse, function: Fuse) -> Fuse:
    """``function``, with a memory if ``fuse`` has one."""
    return fuse.like(function) if isinstance(fuse, Coalitions) else function


def combine(function: Callable[..., Tensor], *trees: Any) -> Any:
    """Applies ``function`` to the corresponding tensors of trees; what is no tensor stays."""
    return pytree.tree_map(
        lambda first, *rest: function(first, *rest) if isinstance(first, Tensor) else first, *trees
    )


def remainder(total: Any, maps: Mapping[str, Any]) -> Any:
    """total - sum of the maps."""
    return combine(lambda first, *rest: first - sum(rest), total, *maps.values())


def completed(total: Any, maps: Mapping[str, Any]) -> Maps:
    """The maps, and as ``bias`` what they miss of the total."""
    return {**maps, BIAS: remainder(total, maps)}
