"""The effect of real signals, sent to this process or to child processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdabench.training import signals
from sdabench.training.signals import SIGNALS, handle_signals, request_stop, stop_requests
from tests.helpers.processes import exit_codes, fork_ranks, wait_for


@pytest.fixture(autouse=True)
def handlers_are_restored():
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:  # the tests run in the background, or under nohup
            signal.signal(number, signal.SIG_DFL)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_that_a_shell_or_nohup_ignores_stay_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_requests() as stop_requested:
            send(number)
            assert not stop_requested()
    finally:
        signal.signal(number, before)


def test_first_signal_is_acknowledged_at_once_and_once(capfd):
    with stop_requests():
        send(signal.SIGINT)
        assert capfd.readouterr().err == "Stopping after this step; press Ctrl-C again to stop now.\n"
        send(signal.SIGTERM)
        assert capfd.readouterr().err == ""


def test_signal_during_an_import_exits_at_once(tmp_path, monkeypatch):
    """A KeyboardInterrupt there could abort native code, or be swallowed, as by this module."""
    (tmp_path / "interrupted.py").write_text(
        "import os\ntry:\n    os.kill(os.getpid(), 15)\nexcept BaseException:\n    os._exit(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def work():
        __import__("interrupted")

    assert exit_codes(fork_ranks(work)) == [75]


def test_process_ends_soon_after_its_parent(tmp_path):
    """The child has no state to save; it is started as a rank is, and killed parents forward nothing."""
    child = "from sdabench.training.signals import end_with_parent as e; e(); import time; time.sleep(60)"
    parent = (
        "import os, subprocess, sys, time\n"
        "environment = os.environ | {'SDABENCH_STARTED_BY': str(os.getpid())}\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], env=environment)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        process.kill()
    began = time.monotonic()
    wait_for(lambda: has_ended(pid))
    assert time.monotonic() - began < 20


def has_ended(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"  # nobody waits for it


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
        request_stop(tmp_path / "stop")
        assert stop_requested()


def test_signal_after_stop_file_interrupts(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_STOP_FILE", str(tmp_path / "stop"))
    request_stop(tmp_path / "stop")
    with stop_requests():
        send(signal.SIGTERM)  # the same request, forwarded
    os.utime(tmp_path / "stop", (0, time.time() + 3600))  # as after the clock was set back
    monkeypatch.setattr(signals, "ONE_REQUEST", 0.0)
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
