"""Roles of processes, and the environment variables that a process sets for its children."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from sdabench.errors import ReportedByRankZeroError, SdabenchError, UsageError
from sdabench.terminal import error_line, printable

PYTHON = (sys.executable, "-P")  # -P: import no module from the current directory
# Id of the parent process: it reports some messages for its children, which stop when it has ended.
STARTED_BY = "SDABENCH_STARTED_BY"
STOP_FILE = "SDABENCH_STOP_FILE"  # stop when this file exists; signals do not reach all processes
STORE_FILE = "SDABENCH_STORE_FILE"  # through which ranks on one machine meet, instead of a port
NETWORKS_AT_ONCE = "SDABENCH_NETWORKS_AT_ONCE"  # number of models that share the machine; recorded
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"  # CUDA's own: indices or UUIDs


_LAUNCH = "start the processes with torchrun, or unset WORLD_SIZE, RANK and LOCAL_RANK"


def launched_processes() -> int:
    """Return torchrun's world size; 1 without torchrun.

    Raises:
        UsageError: the variables that torchrun sets are incomplete, or contradict each other.
    """
    world_size = _launch_variable("WORLD_SIZE", "1")
    rank = _launch_variable("RANK", "0" if world_size == 1 else "")
    if rank >= world_size:
        raise UsageError(f"RANK is {rank}, but WORLD_SIZE is {world_size}; {_LAUNCH}")
    local_rank()
    return world_size


def local_rank() -> int:
    """Return the index of this process on its machine, which is that of its GPU."""
    return _launch_variable("LOCAL_RANK", os.environ.get("RANK") or "0")


def first_on_machine() -> bool:
    """Return whether this is the first of the processes of a job on its machine."""
    return local_rank() == 0


def local_processes(processes: int) -> int:
    """Return how many of the processes of a job run on this machine; torchrun states it."""
    return max(1, min(processes, _launch_variable("LOCAL_WORLD_SIZE", str(processes))))


def _launch_variable(name: str, default: str) -> int:
    text = os.environ.get(name) or default
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{name} is {f'{text!r}, not a number' if text else 'not set'}; {_LAUNCH}")
    return int(text)


def is_main_process() -> bool:
    """Return whether this is rank 0, which prints and writes for all ranks."""
    return not os.environ.get("RANK", "").strip("0")


def report_error(error: SdabenchError) -> None:
    """Print an error as one line on stderr, unless rank 0 reports it; other ranks name themselves."""
    if not isinstance(error, ReportedByRankZeroError):
        rank = os.environ.get("RANK", "0")
        prefix = f"[process {int(rank) + 1}] " if rank.isdecimal() and rank != "0" else ""
        print(error_line(f"{prefix}Error: {error}"), file=sys.stderr)


def note(text: str) -> None:
    """Print a line to stderr in the main process."""
    if is_main_process():
        with suppress(OSError):  # the terminal is closed
            print(printable(text), file=sys.stderr, flush=True)


def python_path() -> str:
    """Return the PYTHONPATH of a child process that runs this same package."""
    own = str(Path(__file__).parents[1])
    return os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))
