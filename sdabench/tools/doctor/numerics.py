"""Probe the torch settings and environment variables that determine how numbers are rounded."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from sdabench.records.environment import allows_tf32
from sdabench.tools.doctor.probe import Probe
from sdabench.training.precision import matmul_precision

PREFIXES = ("MKL_", "PYTORCH_", "ATEN_", "ONEDNN_", "DNNL_")
NAMES = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "OMP_NUM_THREADS")
# Values with full float32 precision; others can lower it. The effect of TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is
# visible in torch's own settings: see probe_matmul.
FULL_PRECISION = {
    "DNNL_DEFAULT_FPMATH_MODE": "strict",
    "NVIDIA_TF32_OVERRIDE": "0",
    "ONEDNN_DEFAULT_FPMATH_MODE": "strict",
}
SMALL_EFFECT = "usually by less than 0.1 points"


@dataclass(frozen=True)
class Settings:
    """Settings, by default those of this process; ``cuda`` is True with a CUDA device."""

    cuda: bool = field(default_factory=torch.cuda.is_available)
    tf32_matmul: bool = field(default_factory=lambda: allows_tf32("cuda", "matmul"))
    tf32_convolutions: bool = field(default_factory=lambda: allows_tf32("cudnn", "conv"))
    matmul_precision: str = field(default_factory=matmul_precision)
    cudnn_benchmark: bool = field(default_factory=lambda: torch.backends.cudnn.benchmark)
    cudnn_deterministic: bool = field(default_factory=lambda: torch.backends.cudnn.deterministic)
    deterministic_algorithms: bool = field(default_factory=torch.are_deterministic_algorithms_enabled)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)


def probes() -> list[Probe]:
    settings = Settings()
    return [
        probe(settings) for probe in (probe_matmul, probe_convolutions, probe_determinism, probe_variables)
    ]


def probe_matmul(settings: Settings) -> Probe:
    tf32 = "on" if settings.tf32_matmul else "off"
    value = f"float32 with {settings.matmul_precision} precision, TF32 {tf32}"
    if settings.matmul_precision == "highest" and not settings.tf32_matmul:
        return Probe("matrix products", "ok", value)
    return Probe(
        "matrix products", "warning", value,
        f"sdabench turns TF32 off while it measures. In other programs top-1 changes, {SMALL_EFFECT}.",
        "Unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE.", affects_accuracy=True,
    )  # fmt: skip


def probe_convolutions(settings: Settings) -> Probe:
    if not settings.tf32_convolutions:
        return Probe("convolutions", "ok", "float32, TF32 off")
    if not settings.cuda:
        return Probe("convolutions", "ok", "float32 (torch uses TF32 by default only on CUDA)")
    return Probe(
        "convolutions", "note", "TF32 on, torch's default; sdabench turns it off while it measures",
        f"Other programs leave it on, so that their top-1 differs, {SMALL_EFFECT}.",
        "Compare the field tf32_convolutions of two records.", affects_accuracy=True,
    )  # fmt: skip


def probe_determinism(settings: Settings) -> Probe:
    """Probe whether repeating a computation gives bit-identical results."""
    switches = {
        "cuDNN benchmark": settings.cudnn_benchmark,
        "cuDNN deterministic": settings.cudnn_deterministic,
        "deterministic algorithms": settings.deterministic_algorithms,
    }
    value = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in switches.items())
    workspace = settings.environment.get("CUBLAS_WORKSPACE_CONFIG")
    value += f", CUBLAS_WORKSPACE_CONFIG {workspace}" if workspace else ""
    if not settings.cuda or (settings.deterministic_algorithms and workspace):
        return Probe("determinism", "ok", value)
    return Probe(
        "determinism", "note", value, "On a GPU, two trainings with the same seed give different weights.",
        "Train with --deterministic, or with several --seeds to measure the spread.",
    )  # fmt: skip


def probe_variables(settings: Settings) -> Probe:
    """Probe the environment variables that affect results or speed."""
    found = {
        name: value
        for name, value in sorted(settings.environment.items())
        if value and (name in NAMES or name.startswith(PREFIXES))
    }
    if not found:
        return Probe("variables", "ok", "no environment variable is set that affects results")
    value = ", ".join(f"{name}={value}" for name, value in found.items())
    lowering = [name for name, full in FULL_PRECISION.items() if found.get(name, full).lower() != full]
    if lowering:
        return Probe(
            "variables", "warning", value,
            f"{' and '.join(lowering)} can lower the precision of float32: top-1 changes, {SMALL_EFFECT}.",
            f"unset {' '.join(lowering)}", affects_accuracy=True,
        )  # fmt: skip
    if set(found) <= {"OMP_NUM_THREADS"}:
        return Probe("variables", "ok", value)
    consequence = "They can select kernels, threads or memory allocation: speed and last digits can change."
    return Probe("variables", "note", value, consequence)
