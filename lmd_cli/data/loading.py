"""Loads samples ahead of use in worker processes, in a given order."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, get_worker_info

from lmd_cli.data.nuscenes.files import SCARCE
from lmd_cli.errors import LmdError, RunError, out_of_memory

#: Torch's words where too few files can be open.
LOST_FILES = ("items of ancdata", "Too many open files")

Batch = Mapping[str, Any]
Collate = Callable[[Sequence[Any]], Batch]
#: Samples that each worker holds ready.
PREFETCH = 2
#: Open files that a worker takes in the main process, and that all of them take together.
FILES_EACH, FILES_ALL = 4, 8
#: More workers than this do not help: eight read faster than a GPU takes a sample.
MOST_WORKERS = 8


class Loaded(NamedTuple):  # a tuple, because torch pins the tensors of tuples
    """A batch of one sample: its index in the dataset, its token, its collated tensors."""

    number: int
    token: str
    batch: Batch


class Unreadable(NamedTuple):
    """A sample that cannot be read, and the reason."""

    number: int
    error: LmdError


class Reader(Dataset["Loaded | Unreadable"]):
    """Reads one sample at a time; calling it and indexing it are the same.

    Args:
        dataset: map-style; gives samples with a ``token``.
        collate: makes a batch of a list of samples.
    """

    def __init__(self, dataset: Any, collate: Collate) -> None:
        self._dataset, self._collate = dataset, collate

    def __getitem__(self, index: int) -> Loaded | Unreadable:
        try:
            sample = self._dataset[index]
        except LmdError as error:
            return Unreadable(index, error.with_traceback(None))
        return Loaded(index, sample.token, self._collate([sample]))

    def __call__(self, index: int) -> Loaded | Unreadable:
        return self[index]


class Sent:
    """What a worker read, on its way through a pipe: no shared memory holds it.

    Args:
        data: a :class:`Loaded`, pickled by value.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self) -> Loaded | Unreadable:
        """What was sent; it comes from a worker of this loader."""
        return pickle.loads(self._data)


class Sender(Dataset["Loaded | Unreadable | Sent"]):
    """A reader in a worker, whose tensors go through shared memory as long as there is any.

    Torch would allocate it in a thread of its own, which loses what does not fit; then nobody
    hears of that sample again.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __getitem__(self, index: int) -> Loaded | Unreadable | Sent:
        try:
            loaded = self._reader[index]
        except (OSError, MemoryError, RuntimeError) as error:
            loaded = Unreadable(index, _failure(error))
        return loaded if _shared(loaded) else Sent(pickle.dumps(loaded))


class Ahead:
    """Reads in worker processes; gives samples in the order that was announced.

    What a worker reads is what would have been read here: errors too arrive in their place. Use
    as a context manager, which starts the workers and ends them, however the block ends.

    Args:
        reader: what to do for each index.
        order: indices, in the order in which they will be asked for.
        workers: processes, at least 1.
        pinned: put tensors into page-locked memory, from which a GPU copies faster.

    Raises:
        RunError: at any time in the block: a worker died (out of memory, for instance).
    """

    def __init__(self, reader: Reader, order: Sequence[int], workers: int, pinned: bool) -> None:
        self._options: dict[str, Any] = {
            "dataset": Sender(reader),
            "batch_size": None,
            "sampler": order,
            "num_workers": min(workers, len(order)),
            "prefetch_factor": PREFETCH,
            "collate_fn": _as_it_is,
            "pin_memory": pinned,
            "worker_init_fn": _start_worker,
            # Without one it draws from torch's global numbers, which a run without workers keeps.
            "generator": torch.Generator(),
        }
        self._samples: Any = None

    def __enter__(self) -> Ahead:
        with warnings.catch_warnings():
            # More workers than cores were asked for; reading may well be bound by the disk.
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            try:
                _require_files(FILES_EACH * self._options["num_workers"] + FILES_ALL)
                self._samples = iter(DataLoader(**self._options))
            except OSError as error:
                raise RunError(_short_of(error, "processes that read data cannot start")) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            died = self._death(error)
            self._end()
        except RuntimeError as late:  # torch says when it notices, also here
            died = self._death(late)
            with contextlib.suppress(RuntimeError):
                self._end()
            if not died:
                raise
        if died:
            raise RunError(died) from error

    def _end(self) -> None:
        # Not left to the iterator's own end: the traceback of an interrupt keeps it alive.
        if self._samples is not None:
            self._samples._shutdown_workers()
        self._samples = None

    def _death(self, error: BaseException | None) -> str:
        """What to say if the error is that of a dead worker: torch's own words, or, if it died
        while it handed a tensor over, a broken connection."""
        # torch raises it wherever the main process is at the time, so it may come wrapped.
        what = next(filter(None, map(_dead_worker, _chain(error))), "")
        if not what and isinstance(error, (EOFError, ConnectionError, FileNotFoundError)):
            dead = _dead(self._samples._workers)
            what = f"process {dead} exited unexpectedly" if dead else ""
        return what and (
            f"a process that reads data died ({what}), maybe because memory or shared memory "
            "(/dev/shm) ran out. Finished rows are kept: the same command goes on from there; "
            "fewer --workers need less memory, 0 reads without further processes"
        )

    def _next(self) -> Loaded | Unreadable | None:
        try:
            loaded = next(self._samples, None)
        except (OSError, RuntimeError) as error:
            if getattr(error, "errno", None) in SCARCE or any(w in str(error) for w in LOST_FILES):
                raise RunError(_short_of(error, "a sample cannot be taken over")) from error
            raise
        loaded = loaded.open() if isinstance(loaded, Sent) else loaded
        if isinstance(loaded, Unreadable) and isinstance(loaded.error, RunError):
            raise loaded.error
        return loaded

    def __call__(self, index: int) -> Loaded | Unreadable:
        """The next sample.

        Raises:
            ValueError: another one is next.
            RunError: too few files can be open.
        """
        if self._samples is None:
            raise ValueError("the workers are not running: use 'with'")
        loaded = self._next()
        if loaded is None or loaded.number != index:
            raise ValueError(f"sample {index} is not next in the order that was announced")
        return loaded


def _shared(loaded: Loaded | Unreadable) -> bool:
    """Puts the tensors into shared memory, if they fit."""
    tensors = [leaf for leaf in pytree.tree_leaves(loaded) if isinstance(leaf, Tensor)]
    working = get_worker_info()
    on_their_way = PREFETCH * (1 if working is None else working.num_workers)
    if not _may_open(2 * len(tensors) * on_their_way):
        return False
    try:
        # Here an error can be handled: the queue would share them in a thread of its own, where an
        # error is printed and the sample lost.
        for tensor in tensors:
            tensor.share_memory_()
    except (RuntimeError, OSError):
        return False
    return True


def _may_open(count: int) -> bool:
    """Whether a process may have so many files open: one stands for each shared tensor."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows, which has no such limit
        return True
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit in (resource.RLIM_INFINITY, -1) or limit >= count


def _require_files(count: int) -> None:
    """Tries whether so many files can be opened, as torch leaves half-started workers behind.

    Raises:
        OSError: they cannot.
    """
    with contextlib.ExitStack() as opened:
        for _ in range(count):
            opened.enter_context(open(os.devnull, "rb"))


def _failure(error: Exception) -> RunError:
    """What keeps a worker from reading, whatever the sample; other errors are raised again."""
    if out_of_memory(error):
        return RunError(_short_of(error, "out of memory"))
    if isinstance(error, OSError):
        return RunError(_short_of(error, "a sample cannot be read"))
    raise error


def _short_of(error: BaseException, what: str) -> str:
    """What to say where files or memory for further processes have run out."""
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    why = lines[0] if lines else type(error).__name__
    return (
        f"{what} ({why}). A higher limit of open files (ulimit -n 4096) or more memory helps; "
        "fewer --workers need less, 0 reads without further processes. Finished rows are kept: the "
        "same command goes on from there"
    )


def read_ahead(
    dataset: Any, collate: Collate, order: Sequence[int], workers: int, pinned: bool = False
) -> contextlib.AbstractContextManager[Callable[[int], Loaded | Unreadable]]:
    """A context that gives a function from index to sample: :class:`Ahead`, or for no workers a
    :class:`Reader`, which reads when asked."""
    reader = Reader(dataset, collate)
    if not workers or not order:
        return contextlib.nullcontext(reader)
    return Ahead(reader, order, workers, pinned)


def default_workers(cores: int, device: torch.device) -> int:
    """Worker processes that pay.

    A GPU takes samples faster than one core reads them, so all cores but one read, up to
    :data:`MOST_WORKERS`. On the CPU computing takes many times as long as reading and uses all
    cores: one worker keeps reading off its path. With one or two cores reading is left where it
    is: a worker would only compete.

    Args:
        cores: those that the process has to itself.
        device: where it computes.
    """
    if cores <= 2:
        return 0
    return min(cores - 1, MOST_WORKERS) if device.type == "cuda" else 1


def _start_worker(worker: int) -> None:
    """In a new worker: one thread, and Ctrl-C is for the main process, which then ends us.

    So is the signal of a scheduler that ends a whole group; on it we go as if we were done.
    """
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _dead(workers: Sequence[Any]) -> int | None:
    """A worker that has ended; its connections break a moment before that can be seen."""
    for _ in range(20):
        for worker in workers:
            if not worker.is_alive():
                return int(worker.pid)
        time.sleep(0.05)
    return None


def _dead_worker(error: BaseException) -> str:
    """What torch says of a worker that died, if that is the error."""
    if isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error):
        return str(error).strip().splitlines()[0].rstrip(".")
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from or while handling."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _as_it_is(loaded: Loaded | Unreadable) -> Loaded | Unreadable:
    return loaded
