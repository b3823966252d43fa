"""Roles of processes, and the environment variables that a process sets for its children."""

import os
import sys
from pathlib import Path

from sdabench.errors import ReportedByRankZeroError, SdabenchError
from sdabench.terminal import printable

PYTHON = (sys.executable, "-P")  # -P: import no module from the current directory
# Id of the parent process: it reports some messages for its children, which stop when it has ended.
STARTED_BY = "SDABENCH_STARTED_BY"
STOP_FILE = "SDABENCH_STOP_FILE"  # stop when this file exists; signals do not reach all processes
NETWORKS_AT_ONCE = "SDABENCH_NETWORKS_AT_ONCE"  # number of models that share the machine; recorded
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"  # CUDA's own: indices or UUIDs


def launched_processes() -> int:
    """Return torchrun's world size; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return whether this is rank 0, which prints and writes for all ranks."""
    return os.environ.get("RANK", "0") == "0"


def report_error(error: SdabenchError) -> None:
    """Print an error as one line on stderr, unless rank 0 reports it; other ranks name themselves."""
    if not isinstance(error, ReportedByRankZeroError):
        rank = "" if is_main_process() else f"[process {int(os.environ['RANK']) + 1}] "
        print(printable(f"{rank}Error: {error}"), file=sys.stderr)


def note(text: str) -> None:
    """Print a line to stderr in the main process."""
    if is_main_process():
        print(printable(text), file=sys.stderr, flush=True)


def python_path() -> str:
    """Return the PYTHONPATH of a child process that runs this same package."""
    own = str(Path(__file__).parents[1])
    return os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))
