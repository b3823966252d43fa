"""Set the numerical precision and determinism of computations."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def strict_fp32(device: torch.device, deterministic: bool = False) -> Iterator[None]:
    """Compute float32 without TF32, which cuDNN uses for convolutions by default, and cuBLAS on request.

    With ``deterministic``, repetitions on the same machine with the same versions are bit-identical, and an
    operation without a deterministic implementation raises an error.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = torch.are_deterministic_algorithms_enabled()
    settings = cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32
    if device.type == "cuda":
        cudnn.allow_tf32 = matmul.allow_tf32 = False
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if deterministic:
            torch.use_deterministic_algorithms(before)
        cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32 = settings


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST)
