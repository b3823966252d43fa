"""Take batches from DataLoader workers, and end in one line when these cannot deliver any."""

import ctypes
import errno
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import dropwhile
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any, NoReturn

from torch.utils.data import DataLoader

from sdabench.errors import SdabenchError
from sdabench.resources import OPEN_FILES_REMEDY, SHARED_MEMORY_REMEDY
from sdabench.training.signals import Stopped, ignore_signals, stop_requested

POLL_SECONDS = 1  # timeout of the DataLoader, after which it is asked again
TIMED_OUT = "DataLoader timed out"  # unlike an error of a worker, after which a batch would be missing
STUCK_SECONDS = 600.0  # without a batch
# What keeps a worker from passing a batch on; the numbers are its exit codes.
CAUSES = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOMEM, errno.EAGAIN)
PR_SET_PDEATHSIG = 1  # of Linux's prctl
# Messages of torch and multiprocessing when workers are lost or cannot share memory; they have no class.
LOST_WORKER = re.compile("DataLoader worker .*(exited|killed)")
FAILURES = re.compile(
    f"{LOST_WORKER.pattern}|[Pp]in memory thread exited|shared memory|ancdata|Communication with the workers|"
    + "|".join(os.strerror(cause) for cause in CAUSES)
)
CAUGHT = "in DataLoader worker process"  # in an error of a worker, whose text has a traceback


def batches_from_workers(loader: DataLoader[Any]) -> Generator[Any]:
    """Yield the batches of a loader with workers; yield Stopped if a stop is requested while waiting.

    Raises:
        SdabenchError: the workers cannot be started, have ended, or deliver nothing for ten minutes.
    """
    others = multiprocessing.active_children()
    try:
        with _transport_errors():
            batches = _start_workers(loader)
        try:
            yield from _take_batches(batches)
        finally:  # now, not when the traceback of an error is freed, for which the process could wait
            batches._shutdown_workers()  # type: ignore[attr-defined]
    finally:
        _kill(set(multiprocessing.active_children()) - set(others))


def _take_batches(batches: Iterator[Any]) -> Generator[Any]:
    workers: list[BaseProcess] = batches._workers  # type: ignore[attr-defined]
    waiting_since = time.monotonic()
    while True:
        try:
            with _transport_errors(workers):
                yield next(batches)
            waiting_since = time.monotonic()
        except StopIteration:
            return
        except RuntimeError as error:
            if not str(error).startswith(TIMED_OUT):
                raise
            if stop_requested():
                _kill(workers)
                yield Stopped()
            if time.monotonic() - waiting_since > STUCK_SECONDS:
                _kill(workers)
                raise SdabenchError(
                    f"no batch from the DataLoader workers for {STUCK_SECONDS / 60:.0f} minutes; check that "
                    "the disk of the dataset responds, or use --workers 0"
                ) from None


def start_worker(worker: int = 0) -> None:
    """Prepare a DataLoader worker: it ignores signals, and ends with its parent or if it cannot send."""
    ignore_signals()
    if sys.platform == "linux":  # elsewhere torch's workers look for their parent every five seconds
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.excepthook = lambda kind, error, trace: _end_worker(error)  # of the thread that sends descriptors
    Queue._on_queue_feeder_error = staticmethod(lambda error, batch: _end_worker(error))  # type: ignore[attr-defined]


@contextmanager
def lost_worker_errors() -> Iterator[None]:
    """Convert the error that torch raises at any place when a DataLoader worker has ended."""
    try:
        yield
    except RuntimeError as error:
        if not LOST_WORKER.match(str(error)):
            raise
        raise _failure_of_workers(error) from error


@contextmanager
def _transport_errors(workers: Sequence[BaseProcess] = ()) -> Iterator[None]:
    """Convert the errors of starting DataLoader workers and of passing batches on."""
    try:
        yield
    except (OSError, EOFError, RuntimeError) as error:
        of_dataset = isinstance(error, RuntimeError) or CAUGHT in str(error)
        if of_dataset and not FAILURES.search(str(error)):
            raise
        raise _failure_of_workers(error, [process.exitcode for process in workers]) from error


def message_of(error: BaseException) -> str:
    """Return the message of an error; of a DataLoader worker's, without the traceback before it."""
    of_worker = str(error).strip().rpartition("Traceback (most recent call last):\n")[2].splitlines()
    lines = dropwhile(lambda line: line.startswith("  "), of_worker)
    return "\n".join(lines) or type(error).__name__


def _failure_of_workers(error: BaseException, exit_codes: Sequence[int | None] = ()) -> SdabenchError:
    """Describe the failure in one line, with a remedy."""
    reason = message_of(error).splitlines()[0]
    codes = [*exit_codes, *map(int, re.findall(r"exit code (\d+)", reason))]
    reason = next((os.strerror(code) for code in codes if code in CAUSES), reason)
    remedies = {OPEN_FILES_REMEDY: "open files|ancdata", SHARED_MEMORY_REMEDY: "shared memory|space|system"}
    fitting = [remedy for remedy, words in remedies.items() if re.search(words, reason)] or [*remedies]
    steps = ", ".join([*fitting, "or --workers 0"])
    return SdabenchError(f"DataLoader workers failed ({reason[:150].rstrip('. ')}); try {steps}")


def _kill(workers: Iterable[BaseProcess]) -> None:
    """Kill workers that may be stuck; they ignore what multiprocessing would send."""
    on_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if on_main_thread else None  # torch's raises
    for process in workers:
        process.kill()
        process.join(5)  # the kernel may hold it
    if on_main_thread:
        signal.signal(signal.SIGCHLD, handler)


def _start_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        return iter(loader)
    except OSError as error:
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        traceback.clear_frames(error.__traceback__)  # ends torch's incomplete iterator, whose __del__ fails
        sys.unraisablehook = hook
        raise


def _end_worker(error: BaseException) -> NoReturn:
    """End a worker that cannot pass on a batch, for which its parent would wait for ever."""
    os._exit(next((cause for cause in CAUSES if os.strerror(cause) in str(error)), 1))
