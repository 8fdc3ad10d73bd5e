"""What does not carry parts on: shapes, comparisons, constants of the operating point; and what
would drop parts silently, which is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lmd_cli.decomposition.errors import LeakError
from lmd_cli.decomposition.registry import aliases, function_name, getters, register_rule
from lmd_cli.decomposition.rules.common import call_plain
from lmd_cli.decomposition.tensor import DecomposedTensor
from lmd_cli.decomposition.tree import carries_parts

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

_METADATA = """
    size dim ndimension numel nelement stride element_size storage_offset is_contiguous
    is_floating_point is_complex is_signed is_same_size is_conj is_neg is_inference get_device
    zeros_like ones_like empty_like full_like rand_like randn_like
    new_zeros new_ones new_empty new_full new_tensor result_type requires_grad_ is_pinned
"""
_FILLED = ("full_like", "new_full", "new_tensor")
_GETTERS = """
    shape dtype device ndim layout requires_grad is_cuda is_cpu is_meta is_sparse is_quantized
    is_leaf itemsize nbytes names grad_fn is_mps is_nested is_mkldnn is_xpu grad
    is_xla is_ipu is_mtia is_maia is_sparse_csr is_vulkan name output_nr retains_grad _version
"""


@register_rule(
    *aliases(*_METADATA.split()), *getters(*_GETTERS.split()), torch.Tensor.__len__, kind="metadata"
)
def metadata(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Reads shape, type or device; new tensors of the same shape are plain.

    Raises:
        LeakError: the new tensor would be filled with a decomposed tensor's values.
    """
    if func.__name__ in _FILLED and carries_parts(args[1:], kwargs):
        raise LeakError(
            f"{function_name(func)} {session.tracker.describe()} would copy a decomposed tensor's "
            "values without its parts; use expand, or .detach() where a constant is meant"
        )
    return call_plain(func, args, kwargs)


_CONSTANTS = """
    eq ne lt le gt ge equal not_equal less less_equal greater greater_equal isclose allclose
    isnan isinf isfinite isposinf isneginf isreal logical_not logical_and logical_or logical_xor
    signbit argmax argmin argsort argwhere nonzero count_nonzero searchsorted bucketize
    any all detach item is_nonzero long int bool byte char short
    isin histc unravel_index
"""
_OPERATORS = """
    __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __bool__ __float__ __int__ __index__
    __nonzero__ __long__ __contains__
    __repr__ __format__
"""


@register_rule(
    *aliases(*_CONSTANTS.split()),
    *(getattr(torch.Tensor, name) for name in _OPERATORS.split()),
    torch._nested_tensor_from_mask_left_aligned,
    kind="constant",
    equation="operating point",
)
def constant(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Computed on the totals alone: an index, a comparison, a detached view."""
    return call_plain(func, args, kwargs)


@register_rule(*getters("data"), kind="constant", equation="operating point")
def data(session: Session, func: Any, x: DecomposedTensor) -> Any:
    """As ``detach()``, which unlike ``.data`` shows writes to it."""
    return x.total.detach()


_LEAVES_TORCH = "numpy tolist data_ptr untyped_storage storage tensor as_tensor asarray set_"


@register_rule(
    *aliases(*_LEAVES_TORCH.split()),
    torch.Tensor.__array__,
    torch.Tensor.__dlpack__,
    torch.Tensor.__dlpack_device__,
    torch.Tensor.__deepcopy__,
    torch.Tensor.__reduce_ex__,
    kind="refused",
)
def refused(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Hands the bare values to code that knows nothing of parts.

    Raises:
        LeakError: always.
    """
    raise LeakError(
        f"{function_name(func)} {session.tracker.describe()} would drop the parts of a decomposed "
        "tensor (its values leave torch); use .detach() where a constant is meant"
    )
