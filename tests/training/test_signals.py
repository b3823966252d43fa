"""What a signal does: real ones, to this process or to real others."""

import os
import signal
import time

import pytest

from sdabench.training import signals
from sdabench.training.signals import SIGNALS, handle_signals, stop_requests
from tests.helpers.processes import ended, forked


@pytest.fixture(autouse=True)
def as_before():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    assert not signals.was_interrupted()


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_request(number):
    with stop_requests() as asked:
        assert not asked()
        send(number)
        assert asked()


def test_one_request_may_come_several_times_and_a_second_one_ends_at_once(monkeypatch):
    """A scheduler sends SIGTERM and SIGUSR2 to all, and a parent passes it on."""
    monkeypatch.setattr(signals, "ONE_REQUEST", 0.2)
    with stop_requests() as asked:
        for number in SIGNALS:
            send(number)
        assert asked()
        time.sleep(0.25)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)


def test_whoever_is_within_another_sees_the_same_request():
    with stop_requests() as outer:
        with stop_requests() as inner:
            send(signal.SIGTERM)
            assert inner()
        assert outer()


def test_a_request_that_came_before_anybody_looked_is_seen():
    """A library may swallow the KeyboardInterrupt that a signal is while nobody looks."""

    def work():
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGUSR2)
        with stop_requests() as asked:
            assert asked()

    assert ended(forked(work)) == [0]


def test_a_file_asks_as_a_signal_does(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_STOP_FILE", str(tmp_path / "stop"))
    with stop_requests() as asked:
        assert not asked()
        (tmp_path / "stop").touch()
        assert asked()


def test_a_signal_after_the_file_is_a_second_request(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_STOP_FILE", str(tmp_path / "stop"))
    (tmp_path / "stop").touch()
    with stop_requests():
        send(signal.SIGTERM)  # the same request, passed on
    os.utime(tmp_path / "stop", (0, time.time() - 2))
    with stop_requests(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)


def test_a_process_whose_starter_is_gone_is_to_stop(monkeypatch):
    with stop_requests() as asked:
        monkeypatch.setenv("SDABENCH_STARTED_BY", str(os.getppid()))
        assert not asked()
        monkeypatch.setenv("SDABENCH_STARTED_BY", "1000000000")
        assert asked()


def test_a_thread_of_others_may_ask_but_has_no_signals():
    from concurrent.futures import ThreadPoolExecutor

    def look():
        with stop_requests() as asked:
            return asked()

    with ThreadPoolExecutor() as threads:
        assert threads.submit(look).result() is False


def test_outside_a_signal_is_a_keyboard_interrupt():
    def work():
        handle_signals()
        send(signal.SIGTERM)

    assert ended(forked(work)) == [75]
