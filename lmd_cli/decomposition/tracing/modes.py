"""Interception of calls: torch's functions by name, and the operators below them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, enable_reentrant_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from lmd_cli.decomposition.registry import rule_above_dispatch
from lmd_cli.decomposition.tracing.run import CONSTANT, CalledFunction, Run

T = TypeVar("T")


@contextmanager
def before_dispatch() -> Iterator[None]:
    """Inside the handler of an operator, the state of the thread from before it was dispatched: its
    own calls are dispatched as the user's are, also inside :func:`above_dispatch`."""
    with ExitStack() as stack:
        with suppress(RuntimeError):  # it was called outside a handler, or the state is back
            stack.enter_context(enable_reentrant_dispatch())
        excluded = torch._C._dispatch_tls_local_exclude_set()
        for key in (torch._C.DispatchKey.Python, torch._C.DispatchKey.PythonTLSSnapshot):
            excluded = excluded.remove(key)
        included = torch._C._dispatch_tls_local_include_set()
        stack.enter_context(torch._C._ForceDispatchKeyGuard(included, excluded))
        yield


@contextmanager
def above_dispatch() -> Iterator[None]:
    """Autograd, ``vmap`` and forward derivatives work inside the handler of an operator, where
    torch excludes them; no dispatch mode sees them."""
    with before_dispatch(), torch._C._DisableTorchDispatch():
        yield


def followed(session: Run, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """What a function gives inside a rule, with its own operators followed."""
    mode = nullcontext() if _is_decomposing() else Operators(session)  # not in its handler
    with before_dispatch(), mode, session.paused(False):
        return function(*args, **kwargs)


def uncompiled() -> AbstractContextManager[Any]:
    """What ``torch.compile`` made runs as it is written until the end of the block, and stays as it
    was for later calls."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
    compiling = ("torch._dynamo", "torch.nn.attention.flex_attention")
    if set_stance is None or sys.modules.keys().isdisjoint(compiling):
        return nullcontext()  # loading the compiler takes a second
    return set_stance("force_eager")  # type: ignore[no-any-return]


class Operators(TorchDispatchMode):
    """Sends every operator to the session."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch's guard against compilation loads the compiler; :func:`uncompiled` is enough."""
        return False

    def __init__(self, session: Run):
        super().__init__()
        self._session = session

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        session = self._session
        if session.calls:  # in a handler of :class:`Functions`
            return session.dispatch(func, args, kwargs or {})
        with torch._C.DisableTorchFunction():  # which is not for our own calls
            return session.dispatch(func, args, kwargs or {})


class Elsewhere(Operators):
    """What another thread runs: its operators are not followed, and must meet no parts."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._session.require_here(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _is_decomposing() -> bool:
    """Whether what is called now is seen by :class:`Operators`."""
    stack = torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    return any(isinstance(mode, Operators) for mode in stack)


def while_decomposed(read: Callable[[], T]) -> T | None:
    """What a reading of values gives, if a function is being decomposed; it is not traced."""
    if not _is_decomposing():
        return None
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
        return read()


@dataclass(eq=False, slots=True)
class Address:
    """Where a tensor lies, for code that compares it with where another does; ``leave`` is called
    before code outside torch gets it as a number."""

    value: int
    leave: Callable[[], None]

    def __eq__(self, other: object) -> bool:
        return self.value == (other.value if isinstance(other, Address) else other)

    def __hash__(self) -> int:
        return hash(self.value)

    def __mod__(self, alignment: int) -> int:
        return self.value % alignment

    def __index__(self) -> int:
        self.leave()
        return self.value


class Functions(TorchFunctionMode):
    """Knows which function of torch the user's code calls: for messages and tables, for rules of
    functions that are no operators, and for those that hand values to code outside torch."""

    def __init__(self, session: Run):
        super().__init__()
        self._session = session

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in METADATA:
            return func(*args, **(kwargs or {}))
        session, kwargs = self._session, kwargs or {}
        with CalledFunction(session, func, (args, kwargs)) as call:
            rule = rule_above_dispatch(func)
            if rule is not None and session.any_carries(args, kwargs):
                call.result = session.by_function(func, rule, args, kwargs)
            elif func in WATCHED or _is_users(func):
                call.result = self._watched(func, args, kwargs)
            else:
                call.result = func(*args, **kwargs)
        return call.result

    def _watched(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A function that may hand values out, that detaches, or that is not torch's own."""
        session = self._session
        if func is Tensor.data_ptr and session.any_carries(args):
            return Address(func(*args), partial(session.outward, func, args, kwargs))
        read = args[1:] if func is Tensor.new_tensor else args  # of whose type it is, it reads none
        as_it_is = func is torch.as_tensor and any(map(torch.is_tensor, (*args, *kwargs.values())))
        if func in OUTWARD and not as_it_is:
            session.outward(func, read, kwargs)
        elif func in PRINTING and session.any_carries(args):
            session.met(CONSTANT, None)
        result = func(*args, **kwargs)
        if func in DETACHING:
            session.mark_plain(result)
        elif _is_users(func) and session.any_carries(args, kwargs):
            session.require_seen(func, result)
        return result


def _is_users(function: Any) -> bool:
    """Whether it takes part in torch's override protocol and is not torch's own."""
    return function.__class__ is FunctionType and not function.__module__.startswith("torch")


def _functions(names: str) -> frozenset[Any]:
    """Torch's functions and methods by name, and what reads attributes of tensors."""
    named = [getattr(home, name, None) for name in names.split() for home in (Tensor, torch)]
    getters = [getattr(f, "__get__", None) for f in named if not callable(f)]
    return frozenset(filter(callable, (*named, *getters)))


#: Read what describes a tensor, and no element.
METADATA = {torch._C._set_grad_enabled} | _functions(
    "size dim ndimension numel nelement stride element_size storage_offset is_contiguous "
    "is_floating_point is_complex is_signed is_same_size is_conj is_neg is_inference get_device "
    "__len__ __hash__ requires_grad_ is_pinned shape dtype device ndim layout requires_grad "
    "is_cuda is_cpu is_meta is_sparse is_quantized is_leaf itemsize nbytes names grad_fn is_mps "
    "is_nested is_mkldnn is_xpu grad is_xla is_ipu is_mtia is_maia is_sparse_csr is_vulkan name "
    "output_nr retains_grad _version"
)
#: Hand bare values to code that knows nothing of parts.
OUTWARD = _functions(
    "numpy tolist data_ptr const_data_ptr untyped_storage storage tensor as_tensor asarray "
    "__array__ apply_ map_ map2_ __dlpack__ __dlpack_device__ __deepcopy__ __reduce_ex__ "
    "new_tensor _typed_storage __cuda_array_interface__"
)
PRINTING = _functions("__repr__")
DETACHING = {
    *_functions("detach detach_ data"),
    *(torch.ops.aten.detach, torch.ops.aten.detach.default),
    *(torch.ops.aten.detach_, torch.ops.aten.detach_.default),
}
WATCHED = OUTWARD | PRINTING | DETACHING
