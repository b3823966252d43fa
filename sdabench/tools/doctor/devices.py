"""Probe the CPU, the memory and the CUDA devices, including the results of a test computation."""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from sdabench.records.record import stored_records
from sdabench.resources import cores, cpu_limit, memory
from sdabench.tools.doctor.probe import Probe, gigabytes, in_one_line
from sdabench.training.precision import strict_fp32

# Largest difference divided by the largest result. TF32 and bf16 are between the two.
FLOAT32_TOLERANCE, WRONG = 5e-5, 0.05
NATIVE_BF16 = (8, 0)  # lowest compute capability with bf16 and TF32 in hardware
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Device:
    """A CUDA device and the result of a small test computation."""

    name: str
    title: str
    capability: tuple[int, int]
    free_bytes: int
    total_bytes: int
    difference: float | None = None  # largest one from the CPU, relative to the largest result
    error: str = ""  # why the computation failed


def probes() -> list[Probe]:
    found = [probe_cpu(cores(), os.cpu_count() or 1, cpu_limit(), torch.get_num_threads())]
    found.append(probe_memory(*memory(), needed=largest_peak()))
    if not torch.cuda.is_available():
        return [*found, probe_without_cuda(torch.version.cuda, driver_version(), cuda_error)]
    cudnn, driver = torch.backends.cudnn.version(), driver_version()  # type: ignore[no-untyped-call]
    versions = f"{torch.version.cuda}, cuDNN {cudnn}" + (f", driver {driver}" if driver else "")
    found.append(Probe("CUDA", "ok", versions))
    architectures = torch.cuda.get_arch_list()
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return found + [probe_device(measure_device(torch.device(name)), architectures) for name in names]


def probe_cpu(usable: int, all_cores: int, limit: float | None, threads: int) -> Probe:
    """Probe the CPU: cores that this process may use, cores of the machine, and the container's limit."""
    value = f"{usable} of {all_cores} cores, {threads} torch thread{'s' * (threads > 1)}"
    if limit is None or limit >= usable:
        return Probe("CPU", "ok", value)
    most = max(1, int(limit))
    return Probe(
        "CPU", "note", f"{value}, but the container allows {limit:g}",
        "Threads and DataLoader workers compete for the cores, which is slow.",
        f"Set OMP_NUM_THREADS={most} and --workers {most}, and --jobs 1 for a suite.",
    )  # fmt: skip


def probe_memory(total: int, available: int | None, needed: int) -> Probe:
    """Compare the memory with the peak of the largest network in the stored records; all in bytes."""
    value = gigabytes(total) + ("" if available is None else f", {gigabytes(available)} available")
    if (total if available is None else available) >= needed:
        return Probe("memory", "ok", value)
    return Probe(
        "memory", "warning", value,
        f"A smoke run took up to {gigabytes(needed)}. The system kills processes that run out of memory.",
        "Close other programs, or use --jobs 1 and a smaller --batch-size.",
    )  # fmt: skip


def largest_peak() -> int:
    """Return the largest peak memory in the stored records, in bytes."""
    return max((record.peak_memory_bytes or 0 for record in stored_records()), default=0)


def driver_version(path: Path = DRIVER) -> str | None:
    """Return the version of the loaded NVIDIA driver; None without a driver.

    torch.utils.collect_env runs nvidia-smi instead, which has no timeout and is missing in some containers.
    """
    try:
        match = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return match[1] if match else None


def probe_without_cuda(built_for: str | None, driver: str | None, why: Callable[[], str]) -> Probe:
    """Probe a machine without a CUDA device; ``built_for`` is torch's version of CUDA, None for the CPU."""
    if driver is None:
        return Probe("CUDA", "note", "no device, the CPU is used", "It is slower, and as accurate.")
    value = f"NVIDIA driver {driver}, but torch cannot use it"
    if built_for is None:
        reason, step = "This torch is a CPU build.", "Install a CUDA build of torch."
    else:
        reason = f"torch was built for CUDA {built_for} and reports: {why()}."
        step = "Update the driver, or check CUDA_VISIBLE_DEVICES and the container's --gpus."
    return Probe("CUDA", "warning", value, f"The CPU is used, which is slow. {reason}", step)


def cuda_error() -> str:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return in_one_line(error)
    return "no device is visible"


def measure_device(device: torch.device) -> Device:
    """Describe a CUDA device, and run a small test computation on it."""
    title, capability, free, total = str(device), (0, 0), 0, 0
    try:
        title, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        free, total = torch.cuda.mem_get_info(device)
        return Device(str(device), title, capability, free, total, difference_from_cpu(device))
    except Exception as error:  # a broken device raises anything
        return Device(str(device), title, capability, free, total, error=in_one_line(error))


def difference_from_cpu(device: torch.device) -> float:
    """Return the largest difference of a device's float32 results from float64 on the CPU.

    The results are a matrix product and a convolution with sdabench's settings. Differences are relative to
    the largest element, or NaN if the device computes NaN.
    """
    from torchvision.ops import nms

    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 192, 192, generator=generator)
    images = torch.randn(2, 32, 24, 24, generator=generator)
    kernels = torch.randn(32, 32, 3, 3, generator=generator)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]])
    with torch.inference_mode(), strict_fp32(device):
        nms(boxes.to(device), boxes[:, 3].to(device), 0.5)  # fails if torchvision is a CPU build
        results = [a.to(device) @ b.to(device), F.conv2d(images.to(device), kernels.to(device))]
        exact = [a.double() @ b.double(), F.conv2d(images.double(), kernels.double())]
        differences = [
            ((result.cpu().double() - expected).abs().max() / expected.abs().max()).item()
            for result, expected in zip(results, exact, strict=True)
        ]
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def is_built_for(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Return whether a torch build has code for a compute capability.

    This is binary code of the same major version that is not newer, or PTX that is not newer. torch lists
    architectures as ``sm_90``, ``sm_90a`` (exactly 9.0) and ``compute_90`` (PTX). Architectures of other
    vendors are accepted.
    """
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)([a-z]?)", architecture)
        if match is None:
            return True
        kind, number, suffix = match.groups()
        target = divmod(int(number), 10)
        if suffix == "a":
            fits = target == capability
        else:
            fits = target <= capability and (kind == "compute" or target[0] == capability[0])
        if fits:
            return True
    return False


def probe_device(device: Device, architectures: Sequence[str]) -> Probe:
    if not device.total_bytes:
        return _failing(device, device.title)
    bf16 = "bf16 in hardware" if device.capability >= NATIVE_BF16 else "no bf16 in hardware"
    value = (
        f"{device.title}, {gigabytes(device.free_bytes)} of {gigabytes(device.total_bytes)} free, "
        f"compute capability {'.'.join(map(str, device.capability))}, {bf16}"
    )
    if not is_built_for(device.capability, architectures):
        return Probe(
            device.name, "problem", value, f"This torch was built only for {', '.join(architectures)}.",
            "Install a build of torch for this device, or use --device cpu.",
        )  # fmt: skip
    if device.difference is None:
        return _failing(device, value)
    value += f", relative error {device.difference:.0e}"
    if not device.difference < WRONG:  # also true for NaN
        return Probe(
            device.name, "problem", value,
            f"Its results are wrong: float32 stays below {FLOAT32_TOLERANCE:g}.",
            "Do not measure on it. Test its memory, and try another driver.", affects_accuracy=True,
        )  # fmt: skip
    if device.difference > FLOAT32_TOLERANCE:
        return Probe(
            device.name, "warning", value,
            "It is less accurate than float32, like TF32 or bf16: top-1 changes, usually by less than "
            "0.1 points.",
            "See the line 'variables' below.", affects_accuracy=True,
        )  # fmt: skip
    if device.free_bytes < device.total_bytes / 2:
        consequence = "Another process uses it: memory may run out, and times are unreliable."
        return Probe(device.name, "note", value, consequence)
    return Probe(device.name, "ok", value)


def _failing(device: Device, value: str) -> Probe:
    return Probe(
        device.name, "problem", value, f"A small test computation fails: {device.error}",
        "Check the driver and what else uses the device, or use --device cpu.",
    )  # fmt: skip
