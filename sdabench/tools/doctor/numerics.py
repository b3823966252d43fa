"""The settings of torch, and the variables of the environment, that decide how numbers are rounded."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sdabench.tools.doctor.probe import Check

PREFIXES = ("MKL_", "PYTORCH_", "ATEN_", "ONEDNN_", "DNNL_")
NAMES = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "OMP_NUM_THREADS")
# The value with which a variable leaves float32 alone; another may make it less. What
# TORCH_ALLOW_TF32_CUBLAS_OVERRIDE does, torch tells itself: see of_matmul.
HARMLESS = {
    "NVIDIA_TF32_OVERRIDE": "0",
    "ONEDNN_DEFAULT_FPMATH_MODE": "strict",
    "DNNL_DEFAULT_FPMATH_MODE": "strict",
}


@dataclass(frozen=True)
class Settings:
    """As this process has them before sdabench measures; ``cuda``: whether there is a device."""

    cuda: bool
    tf32_matmul: bool
    tf32_convolutions: bool
    matmul_precision: str  # "highest", "high" or "medium"
    cudnn_benchmark: bool
    cudnn_deterministic: bool
    deterministic_algorithms: bool
    environment: Mapping[str, str]

    @classmethod
    def of_process(cls) -> "Settings":
        return cls(
            cuda=torch.cuda.is_available(),
            tf32_matmul=torch.backends.cuda.matmul.allow_tf32,
            tf32_convolutions=torch.backends.cudnn.allow_tf32,
            matmul_precision=torch.get_float32_matmul_precision(),
            cudnn_benchmark=torch.backends.cudnn.benchmark,
            cudnn_deterministic=torch.backends.cudnn.deterministic,
            deterministic_algorithms=torch.are_deterministic_algorithms_enabled(),
            environment=os.environ,
        )


def checks() -> list[Check]:
    settings = Settings.of_process()
    return [of_matmul(settings), of_convolutions(settings), of_repetition(settings), of_variables(settings)]


def of_matmul(settings: Settings) -> Check:
    tf32 = "on" if settings.tf32_matmul else "off"
    value = f"float32 with {settings.matmul_precision} precision, TF32 {tf32}"
    if settings.matmul_precision == "highest" and not settings.tf32_matmul:
        return Check("matrix products", "ok", value)
    return Check(
        "matrix products", "warning", value,
        "sdabench switches it off while it measures; other code's top-1 moves, usually by less than 0.1.",
        "Unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE.", moves_accuracy=True,
    )  # fmt: skip


def of_convolutions(settings: Settings) -> Check:
    if not settings.tf32_convolutions:
        return Check("convolutions", "ok", "float32, TF32 off")
    if not settings.cuda:
        return Check("convolutions", "ok", "float32; TF32, torch's default, is for CUDA alone")
    return Check(
        "convolutions", "note", "TF32 on, torch's default; sdabench switches it off while it measures",
        "Other code leaves it on, and its top-1 then differs from ours, usually by less than 0.1.",
        "Compare the field tf32_convolutions of two records.", moves_accuracy=True,
    )  # fmt: skip


def of_repetition(settings: Settings) -> Check:
    """Whether the same computation twice gives the same bits."""
    switches = {
        "cuDNN benchmark": settings.cudnn_benchmark,
        "cuDNN deterministic": settings.cudnn_deterministic,
        "deterministic algorithms": settings.deterministic_algorithms,
    }
    value = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in switches.items())
    workspace = settings.environment.get("CUBLAS_WORKSPACE_CONFIG")
    value += f", CUBLAS_WORKSPACE_CONFIG {workspace}" if workspace else ""
    if not settings.cuda or (settings.deterministic_algorithms and workspace):
        return Check("repetition", "ok", value)
    return Check(
        "repetition", "note", value,
        "On a GPU two trainings by the same seed end apart; by how much, --seeds shows.",
    )  # fmt: skip


def of_variables(settings: Settings) -> Check:
    """Of the environment's variables that change numbers, or how fast they come."""
    found = {
        name: value
        for name, value in sorted(settings.environment.items())
        if value and (name in NAMES or name.startswith(PREFIXES))
    }
    if not found:
        return Check("variables", "ok", "none is set that changes numbers")
    value = ", ".join(f"{name}={value}" for name, value in found.items())
    lowering = [name for name in found if name in HARMLESS and found[name].lower() != HARMLESS[name]]
    if lowering:
        return Check(
            "variables", "warning", value,
            f"{' and '.join(lowering)} may round float32 more: top-1 moves, usually by less than 0.1.",
            f"unset {' '.join(lowering)}", moves_accuracy=True,
        )  # fmt: skip
    if set(found) <= {"OMP_NUM_THREADS"}:
        return Check("variables", "ok", value)
    return Check(
        "variables",
        "note",
        value,
        "They choose kernels, threads or memory: speed, and the last bits of a sum.",
    )
