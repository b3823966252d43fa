"""Tell the other ranks of a job why this one ends, and end it if another has failed, is silent or is late.

Ranks exchange heartbeats and errors through the store of the process group. gloo and NCCL state only that a
connection was closed, or nothing: a rank that computes on a GPU does not notice that another has ended.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from sdabench.errors import ExitCode, ReportedByRankZeroError, SdabenchError
from sdabench.processes import first_on_machine, report_error
from sdabench.training.device_errors import describe_device_error, is_out_of_memory

HEARTBEAT_INTERVAL = 2.0  # seconds
HEARTBEAT_TIMEOUT = 120.0  # seconds without a heartbeat of a rank, after which the others end
STEP_TIMEOUT = 1800.0  # seconds that a rank may be late for a collective; its first step may compile
GRACE = 20.0  # seconds to end after another rank has failed
CAUSE, LEFT = "cause", "left"
RESUME = "rerun the same command to resume from the last checkpoint"


class LostPeerError(SdabenchError):
    """A rank ends because another has ended, is silent or is late."""

    def __init__(self, message: str, exit_code: int = ExitCode.ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Cause:
    """The error of the rank that failed first."""

    rank: int
    message: str
    exit_code: int


class Watchdog:
    """Watch the ranks of a job on ``hosts`` from this ``rank``, by a thread with a connection of its own.

    Another thread never waits for the store. It counts the time, without that for which a scheduler has
    suspended the job: ranks do not continue at the same moment. Without ``own_store``, as with ``--nproc``,
    the parent process watches them.
    """

    def __init__(self, rank: int, hosts: Sequence[str], store: Any, own_store: Any = None) -> None:
        self.rank, self.size, self.hosts, self.store = rank, len(hosts), hosts, store
        self.collectives = 0  # that this rank has started
        self._depth, self._since, self._limit = 0, 0.0, STEP_TIMEOUT
        self._error: tuple[BaseException, float] | None = None  # the error that ends this rank, and its time
        self._clock = self._answered = 0.0  # seconds; when the store last answered
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=work, args=arguments, daemon=True)
            for work, arguments in ((self._watch, (own_store,)), (self._keep_time, ()))
            if own_store is not None
        ]
        for thread in self._threads:
            thread.start()

    def name(self, rank: int) -> str:
        """Return the name of a rank in messages."""
        return f"process {rank + 1} of {self.size} on {self.hosts[rank]}"

    @contextmanager
    def waiting(self, limit: float | None = None) -> Iterator[None]:
        """Wait in a collective for the other ranks, at most ``limit`` seconds [default: STEP_TIMEOUT]."""
        if self._depth == 0:
            self._since, self._limit = self._clock, STEP_TIMEOUT if limit is None else limit
        self.collectives += 1
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def fail(self, error: BaseException) -> None:
        """Tell the others which error ends this rank, before it leaves the process group.

        If it waits there for its device, the thread ends the process.
        """
        self._error = error, self._clock
        if (cause := _cause_of(self.rank, error)) is not None:
            with suppress(RuntimeError):  # the store is gone
                self.store.compare_set(CAUSE, "", json.dumps([cause.rank, cause.message, cause.exit_code]))

    def close(self) -> None:
        """Stop watching; the others expect no more heartbeats."""
        self._closed.set()
        for thread in self._threads:
            thread.join(HEARTBEAT_INTERVAL)
        with suppress(RuntimeError):
            self.store.set(f"heartbeat {self.rank}", LEFT)
            deadline = time.monotonic() + 2.5 * HEARTBEAT_INTERVAL
            while self._holds_store() and time.monotonic() < deadline:
                if all(_heartbeat(self.store, rank) == LEFT for rank in range(self.size)):
                    break
                time.sleep(0.01)

    def _holds_store(self) -> bool:
        """Return whether the store ends with this process, and not with torchrun."""
        return (
            self.rank == 0
            and bool(self._threads)
            and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        )

    def connection_error(self) -> SdabenchError:
        """Return the error for a closed connection to another rank, with the cause if known."""
        with suppress(RuntimeError):
            if (found := self._find_cause()) is not None:
                return found
        own = self.name(self.rank)
        return LostPeerError(f"{own} stops, because another has ended with the error above; {RESUME}")

    def _find_cause(self) -> SdabenchError | None:
        """Wait for the cause, or for heartbeats, after which the silent ranks are those that ended."""
        watched = bool(self._threads)
        self.store.set(f"disconnected {self.rank}", "")
        deadline = time.monotonic() + (2.5 * HEARTBEAT_INTERVAL if watched else 0.5)
        others = [rank for rank in range(self.size) if rank != self.rank]
        before = {rank: _heartbeat(self.store, rank) for rank in others}
        silent = others
        while silent and time.monotonic() < deadline:
            if (cause := _cause(self.store)) is not None:
                return self._ended_by(cause)
            silent = [
                rank
                for rank in silent
                if not self.store.check([f"disconnected {rank}"])
                and _heartbeat(self.store, rank) == before[rank] != LEFT
            ]
            time.sleep(0.05)
        if not (silent and watched):
            return None
        names = " and ".join(self.name(rank) for rank in silent[:3])
        return LostPeerError(
            f"{self.name(self.rank)} stops, because {names} ended without a message; {RESUME}"
        )

    def _ended_by(self, cause: Cause) -> SdabenchError:
        if not first_on_machine():
            return ReportedByRankZeroError(cause.exit_code)
        return LostPeerError(
            f"{self.name(self.rank)} stops, because {self.name(cause.rank)} has ended: {cause.message}",
            cause.exit_code,
        )

    def _keep_time(self) -> None:
        """End this process if it hangs after an error, or waits for a store that does not answer."""
        while not self._closed.wait(HEARTBEAT_INTERVAL):
            self._clock += HEARTBEAT_INTERVAL
            if self._error is not None and self._clock - self._error[1] > GRACE:
                self._end(self._error[0])
            if self._depth and self._clock - self._answered > HEARTBEAT_TIMEOUT:
                self._end(LostPeerError(self._silent([0])))

    def _watch(self, store: Any) -> None:
        """Send heartbeats; end this process if it waits for a rank that has failed, is silent or is late."""
        beat = 0
        seen: dict[int, tuple[str, float]] = {}  # the last heartbeat of each rank, and its time
        while not self._closed.wait(HEARTBEAT_INTERVAL):
            beat += 1
            with suppress(RuntimeError):  # of a lost connection
                store.set(f"heartbeat {self.rank}", f"{beat} {self.collectives}")  # needs no answer
                cause, now = _cause(store), self._clock
                self._answered = now
                if not self._depth:
                    continue
                if cause is not None and now - seen.setdefault(-1, ("", now))[1] > GRACE:
                    self._end(self._ended_by(cause))
                if now - self._since > min(HEARTBEAT_TIMEOUT, STEP_TIMEOUT) / 4:
                    for rank in range(self.size):
                        if (heartbeat := _heartbeat(store, rank)) != seen.get(rank, (None,))[0]:
                            seen[rank] = heartbeat, now
                    self._end_if_silent_or_late({rank: each for rank, each in seen.items() if rank >= 0}, now)

    def _end_if_silent_or_late(self, seen: dict[int, tuple[str, float]], now: float) -> None:
        others = {rank: each for rank, each in seen.items() if rank != self.rank and each[0] != LEFT}
        if silent := [rank for rank, (_, since) in others.items() if now - since > HEARTBEAT_TIMEOUT]:
            self._end(LostPeerError(self._silent(silent)))
        if self._depth and now - self._since > self._limit:
            late = [
                rank for rank, (last, _) in others.items() if last and int(last.split()[1]) < self.collectives
            ]
            names = self._names(late) or "others in the same step"
            waited = f"{self.name(self.rank)} has waited {self._limit / 60:.3g} minutes for {names}"
            self._end(LostPeerError(f"{waited} and stops; look for the reason there, and {RESUME}"))

    def _silent(self, ranks: Sequence[int]) -> str:
        minutes = f"{HEARTBEAT_TIMEOUT / 60:.3g} minutes"
        what = f"{self.name(self.rank)} stops: no heartbeat from {self._names(ranks)} for {minutes}"
        return f"{what}; look for the reason there, and {RESUME}"

    def _names(self, ranks: Sequence[int]) -> str:
        more = f" and {len(ranks) - 3} more" if len(ranks) > 3 else ""
        return ", ".join(self.name(rank) for rank in ranks[:3]) + more

    def _end(self, error: BaseException) -> NoReturn:
        """End this process at once: native code that waits for other ranks cannot be interrupted."""
        if not isinstance(error, SdabenchError):
            error = SdabenchError(_message(error))
        report_error(error)
        os._exit(error.exit_code)


def _cause(store: Any) -> Cause | None:
    """Return the error of the rank that failed first, if any."""
    return Cause(*json.loads(store.get(CAUSE))) if store.check([CAUSE]) else None


def _heartbeat(store: Any, rank: int) -> str:
    """Return the last heartbeat of a rank: its count, and the number of collectives that it has started."""
    key = f"heartbeat {rank}"
    return str(store.get(key).decode()) if store.check([key]) else ""


def _cause_of(rank: int, error: BaseException) -> Cause | None:
    """Return an error for the other ranks; None for a stop, and for an error that they know."""
    if not isinstance(error, Exception) or isinstance(error, (LostPeerError, ReportedByRankZeroError)):
        return None
    code = error.exit_code if isinstance(error, SdabenchError) else ExitCode.ERROR
    return Cause(rank, _message(error), code)


def _message(error: BaseException) -> str:
    words = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, SdabenchError):
        return words
    if is_out_of_memory(error):
        return f"out of memory ({words[:150]})"
    return describe_device_error(error) or words
