"""Tell the other ranks of a job why one has ended, and find the one that they wait for, by a store.

The store is that of the process group. gloo and NCCL state only that a connection was lost, or nothing: a
rank that computes on a GPU does not notice that another has ended.
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

INTERVAL = 2.0  # seconds between two signs of life
SILENCE = 120.0  # seconds without one, after which a rank is lost
STEP_TIMEOUT = 1800.0  # seconds that a rank may come later than others, which may include its compiler
GRACE = 20.0  # seconds to end after another rank has failed
CAUSE, LEFT = "cause", "left"
RESUME = "rerun the same command to resume from the last checkpoint"


class LostPeerError(SdabenchError):
    """A rank ends, because another has ended or does not answer."""

    def __init__(self, message: str, exit_code: int = ExitCode.ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Cause:
    """The error of the rank that has failed first."""

    rank: int
    message: str
    exit_code: int


class Peers:
    """The ranks of a job, on ``hosts``; this is ``rank``. A thread watches the others through ``own_store``.

    Without that connection, as with ``--nproc``, the parent process watches them.
    """

    def __init__(self, rank: int, hosts: Sequence[str], store: Any, own_store: Any = None) -> None:
        self.rank, self.size, self.hosts, self.store = rank, len(hosts), hosts, store
        self.collectives = 0  # that this rank has begun
        self._depth, self._since, self._limit = 0, 0.0, STEP_TIMEOUT
        self._error: tuple[BaseException, float] | None = None  # that ends this rank, and since when
        self._closed = threading.Event()
        self._watcher = None if own_store is None else threading.Thread(target=self._watch, args=(own_store,))
        if self._watcher is not None:
            self._watcher.daemon = True
            self._watcher.start()

    def name(self, rank: int) -> str:
        """Return the name of a rank in messages."""
        return f"process {rank + 1} of {self.size} on {self.hosts[rank]}"

    @contextmanager
    def waiting(self, limit: float | None = None) -> Iterator[None]:
        """State that this rank waits for the others, for ``limit`` seconds [default: STEP_TIMEOUT]."""
        if self._depth == 0:
            self._since, self._limit = time.monotonic(), STEP_TIMEOUT if limit is None else limit
        self.collectives += 1
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def fail(self, error: BaseException) -> None:
        """Tell the others that an error ends this rank, which has to leave the process group soon.

        If its device keeps it waiting there, the thread ends the process.
        """
        self._error = error, time.monotonic()
        if (cause := _cause_of(self.rank, error)) is not None:
            with suppress(RuntimeError):  # the store is gone
                self.store.compare_set(CAUSE, "", json.dumps([cause.rank, cause.message, cause.exit_code]))

    def close(self) -> None:
        """Stop watching; the others do not expect signs of life any more."""
        self._closed.set()
        if self._watcher is not None:
            self._watcher.join(INTERVAL)
        with suppress(RuntimeError):
            self.store.set(f"alive {self.rank}", LEFT)
            deadline = time.monotonic() + 2.5 * INTERVAL
            while self._holds_store() and time.monotonic() < deadline:
                if all(_sign(self.store, rank) == LEFT for rank in range(self.size)):
                    break
                time.sleep(0.01)

    def _holds_store(self) -> bool:
        """Return whether the others lose the store when this process ends; torchrun holds it itself."""
        return (
            self.rank == 0
            and self._watcher is not None
            and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        )

    def lost(self) -> SdabenchError:
        """Return the error of a rank that has lost its connection to another, with the cause if known."""
        with suppress(RuntimeError):
            if (found := self._find_lost()) is not None:
                return found
        own = self.name(self.rank)
        return LostPeerError(f"{own} stops, because another has ended with the error above; {RESUME}")

    def _find_lost(self) -> SdabenchError | None:
        """Wait until the cause is known, or until all ranks but the lost ones have given a sign of life."""
        watched = self._watcher is not None
        self.store.set(f"lost {self.rank}", "")
        deadline = time.monotonic() + (2.5 * INTERVAL if watched else 0.5)
        others = [rank for rank in range(self.size) if rank != self.rank]
        before = {rank: _sign(self.store, rank) for rank in others}
        silent = others
        while silent and time.monotonic() < deadline:
            if (cause := _cause(self.store)) is not None:
                return self._ended_by(cause)
            silent = [
                rank
                for rank in silent
                if not self.store.check([f"lost {rank}"]) and _sign(self.store, rank) == before[rank] != LEFT
            ]
            time.sleep(0.05)
        if not (silent and watched):
            return None
        names = " and ".join(self.name(rank) for rank in silent[:3])
        return LostPeerError(
            f"{self.name(self.rank)} stops, because {names} has ended without a message; {RESUME}"
        )

    def _ended_by(self, cause: Cause) -> SdabenchError:
        if not first_on_machine():
            return ReportedByRankZeroError(cause.exit_code)
        return LostPeerError(
            f"{self.name(self.rank)} stops, because {self.name(cause.rank)} has ended: {cause.message}",
            cause.exit_code,
        )

    def _watch(self, store: Any) -> None:
        """Give signs of life; end this process if it cannot end, or waits for a rank that is lost or late."""
        beat, answered = 0, time.monotonic()
        seen: dict[int, tuple[str, float]] = {}  # the last sign of each rank, and since when
        while not self._closed.wait(INTERVAL):
            beat += 1
            now = time.monotonic()
            if self._error is not None and now - self._error[1] > GRACE:
                self._end(self._error[0])
            try:
                store.set(f"alive {self.rank}", f"{beat} {self.collectives}")
                answered = now
                cause = _cause(store) if self._depth else None
                if cause is not None and now - seen.setdefault(-1, ("", now))[1] > GRACE:
                    self._end(self._ended_by(cause))
                if self._depth and now - self._since > min(SILENCE, STEP_TIMEOUT) / 4:
                    for rank in range(self.size):
                        if (sign := _sign(store, rank)) != seen.get(rank, (None,))[0]:
                            seen[rank] = sign, now
                    self._end_if_lost({rank: each for rank, each in seen.items() if rank >= 0}, now)
            except RuntimeError:
                if self._depth and now - answered > SILENCE:
                    self._end(LostPeerError(self._silent([0])))

    def _end_if_lost(self, seen: dict[int, tuple[str, float]], now: float) -> None:
        others = {
            rank: (sign, since) for rank, (sign, since) in seen.items() if rank != self.rank and sign != LEFT
        }
        if silent := [rank for rank, (_, since) in others.items() if now - since > SILENCE]:
            self._end(LostPeerError(self._silent(silent)))
        if self._depth and now - self._since > self._limit:
            late = [
                rank for rank, (sign, _) in others.items() if sign and int(sign.split()[1]) < self.collectives
            ]
            names = self._names(late) or "others in the same step"
            waited = f"{self.name(self.rank)} has waited {self._limit / 60:.3g} minutes for {names}"
            self._end(LostPeerError(f"{waited} and stops; look for the reason there, and {RESUME}"))

    def _silent(self, ranks: Sequence[int]) -> str:
        return (
            f"{self.name(self.rank)} stops: no sign of life from {self._names(ranks)} for {SILENCE / 60:.3g} "
            f"minutes; look for the reason there, and {RESUME}"
        )

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
    """Return the error of the rank that has failed first, if one has."""
    return Cause(*json.loads(store.get(CAUSE))) if store.check([CAUSE]) else None


def _sign(store: Any, rank: int) -> str:
    """Return the last sign of life of a rank: a count, and the number of collectives that it has begun."""
    key = f"alive {rank}"
    return str(store.get(key).decode()) if store.check([key]) else ""


def _cause_of(rank: int, error: BaseException) -> Cause | None:
    """Return what the others are told about an error; None for a stop, and for one that they know."""
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
