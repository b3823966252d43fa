"""Execute a job in several processes on this machine: start the ranks, watch them, and end them together.

The ranks meet through a file in a private folder, not through a port: whoever can write to the store of a
process group can run code in its ranks, because they unpickle what is in it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sdabench.errors import ExitCode
from sdabench.processes import STARTED_BY, STOP_FILE, STORE_FILE, python_path
from sdabench.resources import cores
from sdabench.runs.launchers import worker_command
from sdabench.training.signals import request_stop, stop_requests

POLL_SECONDS = 0.1
# Seconds that ranks have to end by themselves after another has failed, and after a second signal.
FAILURE_GRACE, TERMINATION_GRACE = 30.0, 5.0


def run_processes(spec_file: Path, world_size: int) -> int:
    """Execute a saved job in several processes; return the first exit code that is not 0, or 0.

    A file requests the ranks to stop, because a signal does not reach a rank that waits in native code. A
    second signal to this process terminates all ranks.
    """
    ranks: list[subprocess.Popen[bytes]] = []
    with stop_requests() as stop_requested, tempfile.TemporaryDirectory() as folder:
        stop_file = Path(folder) / "stop"
        try:
            for rank in range(world_size):
                environment = os.environ | _environment(Path(folder), rank, world_size)
                ranks.append(
                    subprocess.Popen(
                        worker_command(spec_file), stdout=subprocess.DEVNULL, env=environment, process_group=0
                    )
                )
            while (failed := _failed(ranks)) is None and _running(ranks):
                time.sleep(POLL_SECONDS)
                if stop_requested():
                    request_stop(stop_file)
            request_stop(stop_file)  # ranks that wait for the failed one
            _wait(ranks, FAILURE_GRACE)
        except BaseException:
            for each in _running(ranks):
                each.terminate()
            _wait(ranks, TERMINATION_GRACE)
            raise
        finally:
            for each in ranks:
                each.kill()
                each.wait()
    if failed is None:
        return ExitCode.OK
    status = ranks[failed].returncode
    if status < 0:
        name = signal.Signals(-status).name
        sys.stderr.write(f"Process {failed + 1} was killed by {name}; rerun the same command to resume.\n")
        return ExitCode.ERROR
    return status


def _environment(folder: Path, rank: int, world_size: int) -> dict[str, str]:
    """Return the environment variables of a rank: those of torchrun, and those of this package."""
    defaults = {"OMP_NUM_THREADS": str(cores(shared_by=world_size))}
    defaults |= {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # torch advises against find_unused_parameters
    return {
        **{name: os.environ.get(name, value) for name, value in defaults.items()},
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        STARTED_BY: str(os.getpid()),
        STOP_FILE: str(folder / "stop"),
        STORE_FILE: str(folder / "store"),
        "PYTHONPATH": python_path(),
    }


def _running(ranks: Sequence["subprocess.Popen[bytes]"]) -> list["subprocess.Popen[bytes]"]:
    return [each for each in ranks if each.poll() is None]


def _failed(ranks: Sequence["subprocess.Popen[bytes]"]) -> int | None:
    """Return a rank that has failed, if possible one that was killed: the others report only that."""
    failed = [(each.returncode > 0, rank) for rank, each in enumerate(ranks) if each.poll()]
    return min(failed)[1] if failed else None


def _wait(ranks: Sequence["subprocess.Popen[bytes]"], seconds: float) -> None:
    """Wait until all ranks have ended, for a number of seconds at most."""
    deadline = time.monotonic() + seconds
    while _running(ranks) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
