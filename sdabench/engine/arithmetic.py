"""Precision and memory of what is computed."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """float32 means float32: cuDNN may not use TF32 for convolutions, which it does by default."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def measuring_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Yields a function that tells the peak memory in bytes: the device's, or on CPU the process's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        yield lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST)
