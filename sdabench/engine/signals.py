"""Stopping at the end of a step instead of in the middle of one."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sdabench.errors import PART_OF_SUITE

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether to stop: a signal asked for it, or the suite was killed.

    A second signal stops at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield lambda: asked or _orphaned()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _orphaned() -> bool:
    suite = os.environ.get(PART_OF_SUITE)
    return suite is not None and os.getppid() != int(suite)


def leave_signals_to_the_parent(worker: int) -> None:
    """For a loader's process: a signal to the whole group must not end it before the training."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
