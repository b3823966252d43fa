"""Stopping at the end of a step instead of in the middle of one, when a signal asks for it."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from sdabench.processes import STARTED_BY, STOP_FILE

# A terminal's, a scheduler's, and what Slurm sends ahead of the end: a time limit, or a preemption.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
# A scheduler signals all processes of a job, and their parents pass it on: within so many seconds it is
# one request. A later one is a second.
ONE_REQUEST = 1.0

_asked: float | None = None  # when a signal first asked
_deferring = False  # whether somebody looks at that


def handle_signals() -> None:
    """From now on a signal is a KeyboardInterrupt, or within :func:`stop_requests` a request.

    In the main thread alone; elsewhere signals are whose they were.
    """
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def ignore_signals(worker: int = 0) -> None:
    """For a loader's process, which a signal to the whole group must not end before the training.

    And for a process that is about to end anyway.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Stopped(KeyboardInterrupt):
    """A request to stop was met at a good moment: what was to be kept is on the disk."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether to stop: a signal asked for it, or who started this is gone.

    A second signal stops at once.
    """
    global _asked, _deferring
    if _deferring:  # an outer caller looks too
        yield stop_is_asked
        return
    before: Mapping[int, object] = {}
    with suppress(ValueError):  # not the main thread: signals are not ours
        before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    _deferring = True
    try:
        yield stop_is_asked
    finally:
        _deferring = False
        if any(handler is not _on_signal for handler in before.values()):
            _asked = None  # the handlers, and what comes of a request, are the caller's
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def stop_is_asked() -> bool:
    return _asked is not None or _orphaned() or _asked_by_file() is not None


def was_interrupted() -> bool:
    """Whether a signal came, even if some library has swallowed what it raised."""
    return _asked is not None


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _asked
    now, first = time.time(), _asked or _asked_by_file()
    _asked = first or now
    if now - _asked <= ONE_REQUEST and (_deferring or first is not None):
        return
    raise KeyboardInterrupt


def _asked_by_file() -> float | None:
    """Since when the file is there that asks to stop."""
    stop_file = os.environ.get(STOP_FILE)
    try:
        return None if stop_file is None else Path(stop_file).stat().st_mtime
    except OSError:
        return None


def _orphaned() -> bool:
    parent = os.environ.get(STARTED_BY)
    return parent is not None and os.getppid() != int(parent)
