"""Compile networks with torch.compile, and report in one line where that fails."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import which
from typing import Any

import torch
from torch import nn

from sdabench.errors import SdabenchError
from sdabench.models.depth_attention import kernels_work
from sdabench.training.device_errors import describe_device_error, is_out_of_memory
from sdabench.training.loading import lost_worker_errors


def compile_network(network: nn.Module) -> Any:
    """Return a network that torch.compile compiles, with the same weights, for inputs of a fixed size."""
    device = next(network.parameters()).device
    if device.index is not None:
        kernels_work(device.index)  # which cannot be tested while the compiler traces
    return torch.compile(network, dynamic=False)


@contextmanager
def compiler_errors(name: str, compiled: bool = True) -> Iterator[None]:
    """Convert the errors of the compiler to a SdabenchError in one line, if a network is compiled.

    The compiler works when a network and its backward pass run for the first time. It is allowed to compile
    many networks; beyond torch's limit it would fall back to eager mode.
    """
    if not compiled:
        yield
        return
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # torch 2.6
    try:
        with config.patch({limit: 256}), warnings.catch_warnings(), lost_worker_errors():
            # Compiled code gives the gradients of 1x1 convolutions other strides; the sum over ranks copies.
            warnings.filterwarnings("ignore", "Grad strides do not match")
            yield
    except (RuntimeError, OSError) as error:
        if is_out_of_memory(error) or describe_device_error(error):
            raise
        raise SdabenchError(f"{name} cannot be compiled: {_reason(error)}; leave out --compile") from error


def _reason(error: Exception) -> str:
    if not (torch.cuda.is_available() or which("g++") or which("clang++") or which("c++")):
        return "torch.compile needs a C++ compiler, and there is none"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
