"""The rendezvous of a run's processes, with heartbeats that show which are alive.

A process that sends none for longer than :data:`SILENCE` seconds counts as dead: it has ended,
hangs, or never started. Nobody waits for it any longer, and those that waited report it.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from lmd_cli.errors import LmdError, RunError
from lmd_cli.runtime.ranks import Plan, Rank

#: Seconds for the processes to start, between two signs of life, and without one until a rank is
#: taken for lost; and for the store to answer.
START_TIMEOUT, BEAT, SILENCE, ANSWER = 50.0, 3.0, 45.0, 20.0
#: Seconds that a rank 0 which fails waits for the others to hear of it.
LINGER = 45.0
#: Seconds between two looks, and until it is said for whom a rank waits.
POLL, PATIENCE = 0.2, 10.0
#: What is the matter with a rank that is not heard of.
SILENT = "has shown no sign of life for {:.0f} s: it is frozen or gone, or has never come"

T = TypeVar("T")
log = logging.getLogger(__name__)


class Meeting:
    """The store where ranks find each other.

    Raises:
        RunError: the store is not reached in time.
    """

    def __init__(self, me: Rank):
        self._me, self._refused = me, False
        self._heard: dict[int, tuple[bytes | None, float]] = {}
        holds = me.rank == 0 and not me.hosted
        if not holds:
            _until(lambda: _listening(me), START_TIMEOUT, f"rank 0 at {me.address}:{me.port}")
        where = f"{me.address}:{me.port}, as MASTER_ADDR and MASTER_PORT or SLURM say"
        with _meaning(f"rank {me.rank} cannot meet the others at {where}"):
            self._store = self._asked(lambda: _store(me, holds))

    @property
    def size(self) -> int:
        """Number of processes."""
        return self._me.size

    def publish(self, plan: Plan) -> None:
        """Rank 0 tells the plan."""
        with _meaning("the plan cannot be told to the other ranks"):
            self._store.set("plan", plan.dumps())

    def plan(self) -> Plan:
        """What rank 0 told; waits for it as long as rank 0 lives.

        Raises:
            RunError: rank 0 ended without a plan, or is frozen, or another process is this rank
                already.
        """
        me = self._me.rank
        with _meaning("rank 0 has ended"):
            if self._asked(lambda: self._store.add(f"claimed/{me}", 1)) > 1:
                self._refused = True
                raise RunError(
                    f"another process at {self._me.address}:{self._me.port} is rank {me} already; "
                    "give each launch a MASTER_PORT of its own"
                )
        ended = "rank 0 ended before it had divided the work; its message says why"
        with _meaning(ended):
            self._await_plan()
            if not self._has("plan"):
                self.arrive()
                raise RunError(ended)
            return Plan.loads(self._asked(lambda: self._store.get("plan")))

    def _await_plan(self) -> None:
        teller = Teller(f"rank {self._me.rank}")
        while not any(map(self._has, ("plan", "failed", "ended/0"))):
            if self.lost([0]):
                where = f"{self._me.address}:{self._me.port}"
                raise RunError(f"rank 0 at {where} {SILENT.format(SILENCE)}")
            teller.waits_for([0])
            time.sleep(POLL)

    def _has(self, key: str) -> bool:
        return bool(self._asked(lambda: self._store.check([key])))

    def _asked(self, ask: Callable[[], T]) -> T:
        """What the store answers; asked in a thread, because a frozen one holds whoever asks.

        Raises:
            RuntimeError: what the store raises.
            RunError: it does not answer.
        """
        answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

        def wait() -> None:
            try:
                answers.put((ask(), None))
            except Exception as error:
                answers.put((None, error))

        threading.Thread(target=wait, daemon=True).start()
        try:
            answer, error = answers.get(timeout=ANSWER)
        except queue.Empty:
            raise RunError(
                f"rank 0 at {self._me.address}:{self._me.port} has not answered for {ANSWER:.0f} "
                "s: it is frozen, or its machine is gone"
            ) from None
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]

    # -- signs of life ------------------------------------------------------------------------

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Shows the others that this process lives, until the block ends, and then that it did."""
        stop = threading.Event()
        heart = threading.Thread(target=self._beat, args=(stop,), daemon=True)
        heart.start()
        try:
            yield
        finally:
            stop.set()
            heart.join(BEAT)  # a frozen store may hold it
            if not self._refused:  # that it ended says nothing of the rank that works
                with contextlib.suppress(RunError, RuntimeError):
                    self._asked(lambda: self._store.set(f"ended/{self._me.rank}", ""))

    def _beat(self, stop: threading.Event) -> None:
        count = 0
        with contextlib.suppress(RuntimeError):  # the store is gone, and those who would listen
            while True:
                self._store.set(f"beat/{self._me.rank}", str(count))
                count += 1
                if stop.wait(BEAT):
                    return

    def lost(self, ranks: Iterable[int]) -> list[int]:
        """Those that have neither ended nor shown a sign of life for :data:`SILENCE` seconds.

        The first look at a rank counts as a sign.
        """
        silent, now = [], time.monotonic()
        with _meaning("the store is gone"):
            for rank in ranks:
                beat = self._asked(lambda key=f"beat/{rank}": self._read(key))  # type: ignore[misc]
                if rank not in self._heard or self._heard[rank][0] != beat:
                    self._heard[rank] = (beat, now)
                if now - self._heard[rank][1] > SILENCE and not self._has(f"ended/{rank}"):
                    silent.append(rank)
        return silent

    def _read(self, key: str) -> bytes | None:
        return self._store.get(key) if self._store.check([key]) else None

    def arrive(self) -> None:
        """Tells rank 0 that this rank has the plan, and is at work if it has any."""
        with _meaning("rank 0 has ended"):
            self._asked(lambda: self._store.set(f"here/{self._me.rank}", ""))

    def absent(self, ranks: Iterable[int]) -> list[int]:
        """Those that have not come yet."""
        with _meaning("the store is gone"):
            return [rank for rank in ranks if not self._has(f"here/{rank}")]

    def ended(self, ranks: Iterable[int]) -> list[int]:
        """Those that have ended by themselves."""
        with _meaning("the store is gone"):
            return [rank for rank in ranks if self._has(f"ended/{rank}")]

    @contextmanager
    def told_of_failure(self) -> Iterator[None]:
        """Rank 0's work: if it fails, the others hear of it, also those that start late."""
        with self.beating():
            try:
                yield
            except LmdError:
                with contextlib.suppress(RunError), _meaning("the store is gone"):
                    self._store.set("failed", "")
                    self._linger()
                raise

    def _linger(self) -> None:
        """The store ends with this process if no launcher holds it."""
        deadline = time.monotonic() + LINGER
        while not self._me.hosted and time.monotonic() < deadline:
            if not self.absent(range(1, self.size)):
                return
            time.sleep(POLL)


class Teller:
    """Says once, after a while, for whom somebody waits.

    Args:
        who: waits.
    """

    def __init__(self, who: str):
        self._who, self._since, self._told = who, time.monotonic(), False

    def waits_for(self, ranks: Iterable[int]) -> None:
        """Is called at every look."""
        if not self._told and time.monotonic() - self._since > PATIENCE:
            self._told = True
            log.warning("%s waits for %s", self._who, names(ranks))


def names(ranks: Iterable[int]) -> str:
    """``rank 1, rank 3``."""
    return ", ".join(f"rank {rank}" for rank in ranks)


def _store(me: Rank, holds: bool) -> Any:
    from torch.distributed import PrefixStore, TCPStore

    timeout = timedelta(seconds=START_TIMEOUT)
    store = TCPStore(me.address, me.port, is_master=holds, timeout=timeout, wait_for_workers=False)
    return PrefixStore(f"lmd/{me.attempt}", store)


@contextmanager
def _meaning(message: str) -> Iterator[None]:
    """Turns what the store raises (subclasses of RuntimeError) into an error that says more."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(f"{message} ({str(error).splitlines()[0]})") from error


def _until(reached: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits in short sleeps, so that Ctrl-C is heeded.

    Raises:
        RunError: not in time.
    """
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise RunError(
                f"waited {seconds:.0f} s for {what}. Were all processes started? If this is one "
                "process and no launcher was meant, unset RANK and SLURM_PROCID"
            )
        time.sleep(POLL)


def _listening(me: Rank) -> bool:
    """torch would wait where Ctrl-C does not reach it, so the port is tried first."""
    try:
        socket.create_connection((me.address, me.port), timeout=5).close()
    except OSError:
        return False
    return True
