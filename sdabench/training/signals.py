"""Handle signals as requests to stop between two steps, where the state can be saved.

Imported before anything that is slow to import, because a signal can arrive at any time.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from sdabench.errors import ExitCode
from sdabench.processes import STARTED_BY, STOP_FILE, is_main_process

# Sent by a terminal, also when it closes, by a scheduler, and by Slurm before a time limit or a preemption.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
# Seconds within which several signals are one request, because a scheduler signals all processes of a job and
# parents forward signals. A later signal is a second request.
ONE_REQUEST = 1.0
ORPHAN_GRACE = 20.0  # seconds that a process has to save its state after its parent has ended

_requested_at: float | None = None  # time.monotonic() at the first signal
_deferring = False  # inside stop_requests
_torchrun: int | None = None  # id of the parent process, if that is torchrun


def handle_signals() -> None:
    """Convert signals to KeyboardInterrupt, or within :func:`stop_requests` to requests.

    During an import, a signal ends the process at once. Signals that the parent process has chosen to ignore
    stay ignored: SIGHUP by ``nohup``, SIGINT of a shell's background jobs. Call this in the main thread.
    """
    for number in _not_ignored():
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
        before = {number: signal.signal(number, _on_signal) for number in _not_ignored()}
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


def request_stop(stop_file: Path) -> None:
    """Request the processes that know this stop file to stop; the first request counts."""
    if not stop_file.exists():
        temporary = stop_file.with_name(f"{stop_file.name}.part")
        temporary.write_text(str(time.monotonic()))  # all processes of a machine share this clock
        temporary.replace(stop_file)


def end_with_parent() -> None:
    """End this process when its parent has ended: at once, or within a time if it has state to save.

    Only children of this program and of torchrun end with their parent.
    """
    global _torchrun
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _torchrun = os.getppid()
    if STARTED_BY in os.environ or _torchrun is not None:
        threading.Thread(target=_end_when_orphaned, daemon=True).start()


def announce_stop() -> None:
    """Print at once that a signal was heard."""
    _print("Stopping after this step; press Ctrl-C again to stop now.")


def _print(line: str) -> None:
    """Print to stderr, also in a signal handler, unless a parent or the main process does."""
    if STARTED_BY not in os.environ and is_main_process():
        with suppress(OSError):  # the terminal is closed
            os.write(2, f"{line}\n".encode())


def _not_ignored() -> list[signal.Signals]:
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _requested_at
    now, first = time.monotonic(), _requested_at or _requested_by_file_at()
    _requested_at = first or now
    if now - _requested_at <= ONE_REQUEST and (_deferring or first is not None):
        if first is None:
            announce_stop()
        return
    if _is_importing(frame):
        _print("Stopped by a signal. Rerun the same command to start again.")
        os._exit(ExitCode.STOPPED)
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether an import is in progress; an exception there can abort native code, such as torch's."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _requested_by_file_at() -> float | None:
    """Return the time of the request in the stop file, or None if there is none."""
    stop_file = os.environ.get(STOP_FILE)
    try:
        return None if stop_file is None else float(Path(stop_file).read_text())
    except OSError:
        return None


def _orphaned() -> bool:
    parent = os.environ.get(STARTED_BY, _torchrun)
    return parent is not None and os.getppid() != int(parent)


def _end_when_orphaned() -> None:
    while not _orphaned():
        time.sleep(0.5)
    if _deferring:
        time.sleep(ORPHAN_GRACE)
    os._exit(ExitCode.STOPPED)
