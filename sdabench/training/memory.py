"""Measure peak memory, and synchronize with a device."""

import ctypes
import gc
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def measuring_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the peak memory in bytes: of the device, or of the process on a CPU."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # the statistics of no device exist before
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        yield lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class MemoryRise:
    """The rise of the peak memory, in bytes, above the memory in use when this was created.

    On CUDA this is the memory of tensors on the device. On the CPU it is the resident memory of this process,
    with kernel workspaces and the allocator's reserve; only Linux reports it.
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
        """Reset the peak; return False if the system cannot."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return True
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return False
        return True

    def peak(self) -> int | None:
        """Return the rise since the last restart in bytes; None if the system does not report it."""
        if self.device.type == "cuda":
            return max(0, torch.cuda.max_memory_allocated(self.device) - self.before)
        highest = _resident("VmHWM")
        return None if highest is None else max(0, highest - self.before)


def _resident(field: str) -> int | None:
    """Read a field of ``/proc/self/status`` in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def _return_freed_memory() -> None:
    """Return freed memory to the system, because reusing it would not count as a rise."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
