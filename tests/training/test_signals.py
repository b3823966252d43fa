"""The effect of real signals, sent to this process or to child processes."""

import os
import signal
import time

import pytest

from sdabench.training import signals
from sdabench.training.signals import SIGNALS, handle_signals, stop_requests
from tests.helpers.processes import exit_codes, fork_ranks


@pytest.fixture(autouse=True)
def handlers_are_restored():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    assert not signals.was_interrupted()


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_requests_a_stop(number):
    with stop_requests() as stop_requested:
        assert not stop_requested()
        send(number)
        assert stop_requested()


def test_repeated_signals_are_one_request_and_a_later_one_interrupts(monkeypatch):
    """A scheduler sends SIGTERM and SIGUSR2 to all processes, and a parent forwards them."""
    monkeypatch.setattr(signals, "ONE_REQUEST", 0.2)
    with stop_requests() as stop_requested:
        for number in SIGNALS:
            send(number)
        assert stop_requested()
        time.sleep(0.25)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)


def test_nested_contexts_see_the_same_request():
    with stop_requests() as outer:
        with stop_requests() as inner:
            send(signal.SIGTERM)
            assert inner()
        assert outer()


def test_signal_before_the_context_is_seen():
    """Outside the context a signal is a KeyboardInterrupt, which a library may swallow."""

    def work():
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGUSR2)
        with stop_requests() as stop_requested:
            assert stop_requested()

    assert exit_codes(fork_ranks(work)) == [0]


def test_stop_file_requests_a_stop(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_STOP_FILE", str(tmp_path / "stop"))
    with stop_requests() as stop_requested:
        assert not stop_requested()
        (tmp_path / "stop").touch()
        assert stop_requested()


def test_signal_after_stop_file_interrupts(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_STOP_FILE", str(tmp_path / "stop"))
    (tmp_path / "stop").touch()
    with stop_requests():
        send(signal.SIGTERM)  # the same request, forwarded
    os.utime(tmp_path / "stop", (0, time.time() - 2))
    with stop_requests(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)


def test_orphaned_process_stops(monkeypatch):
    with stop_requests() as stop_requested:
        monkeypatch.setenv("SDABENCH_STARTED_BY", str(os.getppid()))
        assert not stop_requested()
        monkeypatch.setenv("SDABENCH_STARTED_BY", "1000000000")
        assert stop_requested()


def test_stop_requests_work_outside_the_main_thread():
    from concurrent.futures import ThreadPoolExecutor

    def read_request():
        with stop_requests() as stop_requested:
            return stop_requested()

    with ThreadPoolExecutor() as threads:
        assert threads.submit(read_request).result() is False


def test_signal_outside_the_context_is_a_keyboard_interrupt():
    def work():
        handle_signals()
        send(signal.SIGTERM)

    assert exit_codes(fork_ranks(work)) == [75]
