"""What a process is among those that belong together, and how one starts another."""

import os
import sys
from pathlib import Path

PYTHON = (sys.executable, "-P")  # -P: no module of the current directory gets in
# Tells a process who started it: it leaves some words to that one, and stops when that one is gone.
STARTED_BY = "SDABENCH_STARTED_BY"
STOP_FILE = "SDABENCH_STOP_FILE"  # asks to stop by being there; signals do not reach all processes
NETWORKS_AT_ONCE = "SDABENCH_NETWORKS_AT_ONCE"  # how many share the machine; records keep it
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"  # CUDA's own: those that a process sees, by numbers or UUIDs


def launched_processes() -> int:
    """How many processes torchrun has started, of which this is one; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the one that speaks, and writes, for all that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


def python_path() -> str:
    """PYTHONPATH for a process that is to run this very package, here or elsewhere."""
    own = str(Path(__file__).parents[1])
    return os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))
