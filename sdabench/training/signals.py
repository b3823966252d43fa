"""Handle signals as requests to stop between two steps, where the state can be saved."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from sdabench.processes import STARTED_BY, STOP_FILE

# Sent by a terminal, by a scheduler, and by Slurm before a time limit or a preemption.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
# Seconds within which several signals are one request, because a scheduler signals all processes of a job and
# parents forward signals. A later signal is a second request.
ONE_REQUEST = 1.0

_requested_at: float | None = None  # time of the first signal
_deferring = False  # inside stop_requests


def handle_signals() -> None:
    """Convert signals to KeyboardInterrupt, or within :func:`stop_requests` to requests.

    Call this in the main thread.
    """
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def ignore_signals(worker: int = 0) -> None:
    """Ignore signals, in a DataLoader worker or in a process that is about to end.

    A signal to the process group must not end a worker while the training still uses it.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Stopped(KeyboardInterrupt):
    """The work stopped on request, after its state was saved."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether to stop: after a signal, or when the parent has ended.

    A second signal raises KeyboardInterrupt at once.
    """
    global _requested_at, _deferring
    if _deferring:  # an outer context is active
        yield stop_requested
        return
    before: Mapping[int, object] = {}
    with suppress(ValueError):  # signal handlers belong to the main thread
        before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    _deferring = True
    try:
        yield stop_requested
    finally:
        _deferring = False
        if any(handler is not _on_signal for handler in before.values()):
            _requested_at = None  # the caller had other handlers
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def stop_requested() -> bool:
    return _requested_at is not None or _orphaned() or _requested_by_file_at() is not None


def was_interrupted() -> bool:
    """Return whether a signal has arrived, even if a library has suppressed the KeyboardInterrupt."""
    return _requested_at is not None


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _requested_at
    now, first = time.time(), _requested_at or _requested_by_file_at()
    _requested_at = first or now
    if now - _requested_at <= ONE_REQUEST and (_deferring or first is not None):
        return
    raise KeyboardInterrupt


def _requested_by_file_at() -> float | None:
    """Return the modification time of the stop file, or None if there is none."""
    stop_file = os.environ.get(STOP_FILE)
    try:
        return None if stop_file is None else Path(stop_file).stat().st_mtime
    except OSError:
        return None


def _orphaned() -> bool:
    parent = os.environ.get(STARTED_BY)
    return parent is not None and os.getppid() != int(parent)
