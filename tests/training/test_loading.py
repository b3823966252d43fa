"""DataLoader workers that cannot deliver batches end the work in one line, and never block a signal."""

import multiprocessing
import os
import resource
import signal
import threading
import time
from contextlib import closing

import pytest
import torch
from torch.utils.data import Dataset

from sdabench.errors import SdabenchError
from sdabench.training import loading
from sdabench.training.loading import message_of
from sdabench.training.signals import Stopped, stop_requests
from sdabench.training.tasks import load_batches


class Tensors(Dataset):
    """Tensors that a worker loads after it has called ``before``."""

    def __init__(self, before):
        self.before = before

    def __len__(self):
        return 8

    def __getitem__(self, index):
        self.before()
        return torch.full((4,), float(index))


def batches(before=lambda: None):
    return load_batches(
        Tensors(before), lambda samples, skipped: torch.stack(samples), 2, False, batch_size=2
    )


def wait_for_ever():
    time.sleep(1000)


def use_up_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # standard input, output and error, already open


def use_up_shared_memory():
    raise RuntimeError(
        "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
    )


def end_by(number):
    return lambda: os.kill(os.getpid(), number)


def fail_in_two_lines():
    raise ValueError("no such pixel\n(3, 4)")


def test_traceback_of_a_worker_is_not_part_of_the_message():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # its message is checked below
        list(batches(fail_in_two_lines))
    assert "Original Traceback" in str(caught.value)
    assert message_of(caught.value) == "ValueError: no such pixel\n(3, 4)"
    assert message_of(OSError(28, "No space left")) == "[Errno 28] No space left"
    assert message_of(MemoryError()) == "MemoryError"


def test_workers_deliver_all_batches_in_order():
    assert [batch[0, 0].item() for batch in batches()] == [0, 2, 4, 6]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (use_up_files, "Too many open files); try ulimit -n 1024, or --workers 0"),
        (use_up_shared_memory, "No space left on device (28)); try docker run --shm-size=8g, or --workers 0"),
        (end_by(signal.SIGKILL), "ulimit -n 1024, docker run --shm-size=8g, or --workers 0"),
        (end_by(signal.SIGBUS), "docker run --shm-size=8g, or --workers 0"),
    ],
)  # fmt: skip
def test_workers_that_cannot_deliver_are_one_line_with_a_remedy(before, words):
    with pytest.raises(SdabenchError, match="DataLoader workers failed") as caught:
        list(batches(before))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_error_of_the_dataset_is_not_blamed_on_the_workers():
    def fail():
        raise ZeroDivisionError("in the dataset")

    with pytest.raises(ZeroDivisionError, match="in the dataset"):
        list(batches(fail))


def test_batch_is_not_lost_if_the_dataset_reports_a_timeout():
    """The DataLoader reports one too, after which it is asked again for the same batch."""

    def fail():
        raise RuntimeError("reading a file timed out")

    with pytest.raises(RuntimeError, match="reading a file timed out"):
        list(batches(fail))


def test_worker_without_a_batch_for_a_long_time_is_an_error(monkeypatch):
    monkeypatch.setattr(loading, "STUCK_SECONDS", 0.5)
    with pytest.raises(SdabenchError, match="no batch from the DataLoader workers for .*--workers 0"):
        list(batches(wait_for_ever))
    assert not multiprocessing.active_children()


def test_stop_is_heard_while_workers_have_no_batch():
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with stop_requests(), closing(batches(wait_for_ever)) as found:
        assert isinstance(next(found), Stopped)
    assert not multiprocessing.active_children()


def test_workers_that_cannot_be_started_are_one_line(monkeypatch):
    def fail(loader):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("torch.utils.data.DataLoader.__iter__", fail)
    with pytest.raises(SdabenchError, match="Read-only file system.*--shm-size=8g, or --workers 0"):
        list(batches())
