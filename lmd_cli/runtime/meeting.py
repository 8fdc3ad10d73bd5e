"""The rendezvous of a run's processes, with heartbeats that show which are alive.

A process that sends none for longer than :data:`LOST_AFTER` seconds counts as dead: it has ended,
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

#: Seconds for the processes to start, between two heartbeats, and without one until a rank counts
#: as lost; and for the store to answer.
START_TIMEOUT, HEARTBEAT, LOST_AFTER, ANSWER_TIMEOUT = 50.0, 3.0, 45.0, 20.0
#: Seconds that a rank 0 which fails waits for the others to read that.
FAILURE_GRACE = 45.0
#: Seconds between two checks, and until it is logged which ranks a rank waits for.
POLL, NOTICE_AFTER = 0.2, 10.0
#: What a rank without heartbeats has.
NO_HEARTBEAT = "has sent no heartbeat for {:.0f} s: it hangs, has ended, or never started"

T = TypeVar("T")
log = logging.getLogger(__name__)


class Meeting:
    """The store where ranks find each other.

    Raises:
        RunError: the store is not reached in time.
    """

    def __init__(self, me: Rank):
        self._me, self._refused = me, False
        self._heartbeats: dict[int, tuple[bytes | None, float]] = {}
        holds = me.rank == 0 and not me.hosted
        if not holds:
            _until(lambda: _listening(me), START_TIMEOUT, f"rank 0 at {me.address}:{me.port}")
        where = f"{me.address}:{me.port}, as MASTER_ADDR and MASTER_PORT or SLURM say"
        with _raising(f"rank {me.rank} cannot meet the others at {where}"):
            self._store = self._asked(lambda: _store(me, holds))

    @property
    def size(self) -> int:
        """Number of processes."""
        return self._me.size

    def publish(self, plan: Plan) -> None:
        """Publishes rank 0's plan."""
        with _raising("the plan cannot be sent to the other ranks"):
            self._store.set("plan", plan.dumps())

    def plan(self) -> Plan:
        """The plan of rank 0; waits for it as long as rank 0 lives.

        Raises:
            RunError: rank 0 ended without a plan, or hangs, or another process is this rank
                already.
        """
        me = self._me.rank
        with _raising("rank 0 has ended"):
            if self._asked(lambda: self._store.add(f"claimed/{me}", 1)) > 1:
                self._refused = True
                raise RunError(
                    f"another process at {self._me.address}:{self._me.port} is rank {me} already; "
                    "give each launch a MASTER_PORT of its own"
                )
        ended = "rank 0 ended before it had divided the work; its message says why"
        with _raising(ended):
            self._await_plan()
            if not self._has("plan"):
                self.arrive()
                raise RunError(ended)
            return Plan.loads(self._asked(lambda: self._store.get("plan")))

    def _await_plan(self) -> None:
        notice = WaitNotice(f"rank {self._me.rank}")
        while not any(map(self._has, ("plan", "failed", "ended/0"))):
            if self.lost([0]):
                where = f"{self._me.address}:{self._me.port}"
                raise RunError(f"rank 0 at {where} {NO_HEARTBEAT.format(LOST_AFTER)}")
            notice.waits_for([0])
            time.sleep(POLL)

    def _has(self, key: str) -> bool:
        return bool(self._asked(lambda: self._store.check([key])))

    def _asked(self, ask: Callable[[], T]) -> T:
        """What the store answers; asked in a thread, because a store that hangs blocks the caller.

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
            answer, error = answers.get(timeout=ANSWER_TIMEOUT)
        except queue.Empty:
            raise RunError(
                f"rank 0 at {self._me.address}:{self._me.port} has not answered for "
                f"{ANSWER_TIMEOUT:.0f} s: it hangs, or its machine is down"
            ) from None
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]

    # -- heartbeats ----------------------------------------------------------------------------

    @contextmanager
    def heartbeats(self) -> Iterator[None]:
        """Shows the others that this process lives, until the block ends, and then that it did."""
        stop = threading.Event()
        sender = threading.Thread(target=self._send_heartbeats, args=(stop,), daemon=True)
        sender.start()
        try:
            yield
        finally:
            stop.set()
            sender.join(HEARTBEAT)  # a store that hangs may block it
            if not self._refused:  # that it ended says nothing of the rank that works
                with contextlib.suppress(RunError, RuntimeError):
                    self._asked(lambda: self._store.set(f"ended/{self._me.rank}", ""))

    def _send_heartbeats(self, stop: threading.Event) -> None:
        count = 0
        with contextlib.suppress(RuntimeError):  # the store has ended, and its clients
            while True:
                self._store.set(f"beat/{self._me.rank}", str(count))
                count += 1
                if stop.wait(HEARTBEAT):
                    return

    def lost(self, ranks: Iterable[int]) -> list[int]:
        """Those that have neither ended nor sent a heartbeat for :data:`LOST_AFTER` seconds.

        The first check of a rank counts as one.
        """
        silent, now = [], time.monotonic()
        with _raising("the store has ended"):
            for rank in ranks:
                beat = self._asked(lambda key=f"beat/{rank}": self._read(key))  # type: ignore[misc]
                if rank not in self._heartbeats or self._heartbeats[rank][0] != beat:
                    self._heartbeats[rank] = (beat, now)
                if now - self._heartbeats[rank][1] > LOST_AFTER and not self._has(f"ended/{rank}"):
                    silent.append(rank)
        return silent

    def _read(self, key: str) -> bytes | None:
        return self._store.get(key) if self._store.check([key]) else None

    def arrive(self) -> None:
        """Reports to rank 0 that this rank has the plan, and works if it has any share."""
        with _raising("rank 0 has ended"):
            self._asked(lambda: self._store.set(f"here/{self._me.rank}", ""))

    def absent(self, ranks: Iterable[int]) -> list[int]:
        """Those that have not come yet."""
        with _raising("the store has ended"):
            return [rank for rank in ranks if not self._has(f"here/{rank}")]

    def ended(self, ranks: Iterable[int]) -> list[int]:
        """Those that have ended by themselves."""
        with _raising("the store has ended"):
            return [rank for rank in ranks if self._has(f"ended/{rank}")]

    @contextmanager
    def announcing_failure(self) -> Iterator[None]:
        """Rank 0's work: if it fails, the others are notified, also those that start late."""
        with self.heartbeats():
            try:
                yield
            except LmdError:
                with contextlib.suppress(RunError), _raising("the store has ended"):
                    self._store.set("failed", "")
                    self._keep_store()
                raise

    def _keep_store(self) -> None:
        """The store ends with this process if no launcher holds it."""
        deadline = time.monotonic() + FAILURE_GRACE
        while not self._me.hosted and time.monotonic() < deadline:
            if not self.absent(range(1, self.size)):
                return
            time.sleep(POLL)


class WaitNotice:
    """Logs once, after a while, which ranks are waited for.

    Args:
        who: the one that waits.
    """

    def __init__(self, who: str):
        self._who, self._since, self._logged = who, time.monotonic(), False

    def waits_for(self, ranks: Iterable[int]) -> None:
        """To be called at every check."""
        if not self._logged and time.monotonic() - self._since > NOTICE_AFTER:
            self._logged = True
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
def _raising(message: str) -> Iterator[None]:
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
