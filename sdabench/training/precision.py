"""Set the numerical precision and determinism of computations."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sdabench.records.environment import allows_tf32

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Backends and operations whose float32 torch 2.9 and later can compute in TF32 or bfloat16.
OPERATIONS = (
    ("cuda", "matmul"), ("cudnn", "conv"), ("cudnn", "rnn"),
    ("mkldnn", "matmul"), ("mkldnn", "conv"), ("mkldnn", "rnn"),
)  # fmt: skip


@contextmanager
def strict_fp32(device: torch.device, deterministic: bool = False) -> Iterator[None]:
    """Compute float32 without TF32, which cuDNN uses for convolutions by default, and cuBLAS on request.

    With ``deterministic``, repetitions on the same machine with the same versions are bit-identical, and an
    operation without a deterministic implementation raises an error.
    """
    cudnn = torch.backends.cudnn
    before, benchmark = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    with _without_tf32():
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
            cudnn.benchmark = False
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            if deterministic:
                torch.use_deterministic_algorithms(before, warn_only=only_warns)
            cudnn.benchmark = benchmark


@contextmanager
def fp32_arithmetic(
    device: torch.device, deterministic: bool = False, tf32: bool = False, cudnn_benchmark: bool = False
) -> Iterator[None]:
    """Apply :func:`strict_fp32`, but allow TF32, or algorithms that cuDNN selects by timing, if requested."""
    with strict_fp32(device, deterministic):
        if tf32:
            allow_tf32()
        if cudnn_benchmark:
            torch.backends.cudnn.benchmark = True
        yield


def allow_tf32() -> None:
    """Allow TF32 until the end of :func:`strict_fp32`."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True


def matmul_precision() -> str:
    """Return torch's precision of float32 matrix products: highest, high or medium."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # its two interfaces disagree; the newer one decides
        return "high" if allows_tf32("cuda", "matmul") else "highest"


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Set both of torch's interfaces to full float32, and restore them.

    Neither suffices: the older one leaves TF32 on if the newer one has allowed it, and torch refuses to read
    or use settings that disagree.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    convolutions, precision = _legacy_convolutions(), _legacy_precision()
    restored = [(settings, _own_precision(*names)) for names in OPERATIONS if (settings := _settings(*names))]
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    for settings, _ in restored:
        settings.fp32_precision = "ieee"
    try:
        yield
    finally:
        cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(precision)
        for settings, own in restored:
            settings.fp32_precision = own


def _settings(backend: str, operation: str) -> Any:
    """Return torch's settings of an operation, whose ``fp32_precision`` can be set; None before torch 2.9."""
    settings = getattr(getattr(torch.backends, backend), operation, None)
    return settings if hasattr(settings, "fp32_precision") else None


def _own_precision(backend: str, operation: str) -> str:
    """Return the precision of an operation, or ``none`` if it is that of all operations of its backend."""
    shared = torch.backends.mkldnn if backend == "mkldnn" else torch.backends.cudnn  # also for cuBLAS
    own = str(_settings(backend, operation).fp32_precision)
    return "none" if own == shared.fp32_precision else own


def _legacy_convolutions() -> bool:
    """Return the older switch for cuDNN, which cannot be read if the newer interface disagrees with it."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return not allows_tf32("cudnn", "conv")


def _legacy_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        pass
    try:
        allowed = torch.backends.cuda.matmul.allow_tf32
    except RuntimeError:
        allowed = not allows_tf32("cuda", "matmul")
    return "high" if allowed else "highest"


@contextmanager
def restoring_threads() -> Iterator[None]:
    """Restore the number of threads at the end, which a resumed training sets to that of its start."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST)
