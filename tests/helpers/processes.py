"""Start, stop and wait for processes."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sdabench.errors import ExitCode, SdabenchError
from sdabench.training.distributed import process_group
from sdabench.training.signals import SIGNALS, handle_signals
from tests.helpers.paths import CHECKOUT


def wait_for(condition: Callable[[], object]) -> None:
    """Poll a condition until it holds; fail if it does not within two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold within two minutes"
        time.sleep(0.05)


def stop_process(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Stop a process group leader by a signal, check for exit code 75 and return its stderr."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal sends it
    else:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 75, stderr
    assert "Traceback" not in stderr, stderr
    assert stderr.count("Stopped by a signal.") == 1
    return stderr


def fork_ranks(
    work: Callable[[], object], processes: int = 1, device: str = "cpu"
) -> list[multiprocessing.Process]:
    """Fork processes that run ``work`` as the ranks of one torch.distributed group.

    They import nothing again, so that hundreds of them can be started. They exit with the codes of ``main``.
    With the device ``cuda``, each rank has its own.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    context = multiprocessing.get_context("fork")

    def child(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.setpgid(0, 0)
        handle_signals()
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            with process_group(f"cuda:{rank}" if device == "cuda" else device):
                work()
        except KeyboardInterrupt:
            os._exit(ExitCode.STOPPED)
        except SdabenchError as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
            os._exit(error.exit_code)
        os._exit(0)

    started = [context.Process(target=child, args=(rank,)) for rank in range(processes)]
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # defer signals until the child handles them
    try:
        for process in started:
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return started


def exit_codes(processes: list[multiprocessing.Process]) -> list[int]:
    """Wait for processes and return their exit codes."""
    for process in processes:
        process.join(120)
        assert process.exitcode is not None, "it hangs"
    return [process.exitcode for process in processes]


def pytest_in_own_process(folder: str, variables: Mapping[str, str], tmp_path: Path) -> None:
    """Run the tests of a folder in a process with these environment variables; none may fail or be skipped."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'inner'}", folder],
        cwd=CHECKOUT, env=own | variables | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert " skipped" not in result.stdout
