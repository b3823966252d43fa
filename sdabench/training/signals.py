"""Signals: a request to stop is met between two steps, where everything can be saved."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from sdabench.processes import STARTED_BY, STOP_FILE

# From a terminal, from a scheduler, and from Slurm ahead of a time limit or a preemption.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
# A scheduler signals all processes of a job, and their parents pass it on: signals within so many seconds
# are one request. A later signal is a second request.
ONE_REQUEST = 1.0

_asked: float | None = None  # time of the first signal
_deferring = False  # inside stop_requests


def handle_signals() -> None:
    """Turn signals into KeyboardInterrupt, or within :func:`stop_requests` into requests.

    Call it in the main thread.
    """
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def ignore_signals(worker: int = 0) -> None:
    """Ignore signals, in a DataLoader worker or in a process that is about to end.

    A signal to the process group must not end a worker before its training.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Stopped(KeyboardInterrupt):
    """The work stopped on request, after it was saved."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether to stop: after a signal, or when the parent process is gone.

    A second signal raises KeyboardInterrupt at once.
    """
    global _asked, _deferring
    if _deferring:  # an outer context is active
        yield stop_is_asked
        return
    before: Mapping[int, object] = {}
    with suppress(ValueError):  # signal handlers belong to the main thread
        before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    _deferring = True
    try:
        yield stop_is_asked
    finally:
        _deferring = False
        if any(handler is not _on_signal for handler in before.values()):
            _asked = None  # the caller had other handlers
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def stop_is_asked() -> bool:
    return _asked is not None or _orphaned() or _asked_by_file() is not None


def was_interrupted() -> bool:
    """Whether a signal has arrived, even if a library has swallowed the KeyboardInterrupt."""
    return _asked is not None


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _asked
    now, first = time.time(), _asked or _asked_by_file()
    _asked = first or now
    if now - _asked <= ONE_REQUEST and (_deferring or first is not None):
        return
    raise KeyboardInterrupt


def _asked_by_file() -> float | None:
    """Modification time of the file that asks to stop, if it exists."""
    stop_file = os.environ.get(STOP_FILE)
    try:
        return None if stop_file is None else Path(stop_file).stat().st_mtime
    except OSError:
        return None


def _orphaned() -> bool:
    parent = os.environ.get(STARTED_BY)
    return parent is not None and os.getppid() != int(parent)
