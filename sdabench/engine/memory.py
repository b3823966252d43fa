"""Memory: when there is too little of it, and how much was used."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of whatever class, says that there was too little memory."""
    words = str(error)
    return isinstance(error, MemoryError) or "out of memory" in words or "can't allocate memory" in words


@contextmanager
def measuring_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Yields a function that tells the peak memory in bytes: the device's, or on CPU the process's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        yield lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
