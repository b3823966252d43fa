"""Memory: when there is too little of it, and how much was used."""

import ctypes
import gc
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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


class MemoryRise:
    """By how many bytes the peak of memory rises above what was in use when this was created.

    On CUDA it is the memory of tensors on the device; on the CPU the resident memory of this process, with
    the workspace of its kernels and what its allocator keeps, which only Linux can tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            self.before = torch.cuda.memory_allocated(device)
        else:
            _return_freed_memory()
            self.before = _resident("VmRSS") or 0

    def restart(self) -> bool:
        """Forgets the peak so far; False where the system cannot."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return True
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return False
        return True

    def peak(self) -> int | None:
        """Since the last restart; None where the system does not tell."""
        if self.device.type == "cuda":
            return max(0, torch.cuda.max_memory_allocated(self.device) - self.before)
        highest = _resident("VmHWM")
        return None if highest is None else max(0, highest - self.before)


def _resident(field: str) -> int | None:
    """Bytes, from Linux's page on this process."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def _return_freed_memory() -> None:
    """To the system, as far as the C library can: what is kept of other networks would be used again."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
