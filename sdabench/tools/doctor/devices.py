"""What there is to compute with, and whether it computes."""

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
from sdabench.tools.doctor.probe import Check, gigabytes
from sdabench.tools.doctor.versions import in_one_line
from sdabench.training.precision import strict_fp32

# Relative to the largest result: float32 is below the first, TF32 and bf16 are between the two.
FLOAT32_TOLERANCE, WRONG = 5e-5, 0.05
NATIVE_BF16 = (8, 0)  # the compute capability from which a device has it, and TF32
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Device:
    """A CUDA device: what it says of itself, and the result of a small computation.

    Args:
        difference: its results from the CPU's, relative to the largest; None where it has none.
        error: why it has none.
    """

    name: str
    title: str
    capability: tuple[int, int]
    free_bytes: int
    total_bytes: int
    difference: float | None = None
    error: str = ""


def checks() -> list[Check]:
    found = [of_cpu(cores(), os.cpu_count() or 1, cpu_limit(), torch.get_num_threads())]
    found.append(of_memory(*memory(), needed=largest_peak()))
    if not torch.cuda.is_available():
        return [*found, without_cuda(torch.version.cuda, driver_version(), _why_no_cuda)]
    architectures = torch.cuda.get_arch_list()
    found.append(Check("CUDA", "ok", _cuda_versions()))
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return found + [of_device(look_at(torch.device(name)), architectures) for name in names]


def of_cpu(usable: int, all_cores: int, limit: float | None, threads: int) -> Check:
    """Of the cores that this process may use, of the machine's, and the container's limit on them."""
    value = f"{usable} of {all_cores} cores, torch computes with {threads} thread{'s' * (threads > 1)}"
    if limit is None or limit >= usable:
        return Check("CPU", "ok", value)
    most = max(1, int(limit))
    return Check(
        "CPU", "note", f"{value}, the container allows {limit:g}",
        "Threads and loader processes are planned for the cores, and wait for each other, which is slow.",
        f"OMP_NUM_THREADS={most}, --workers {most}, and --jobs 1 for a suite.",
    )  # fmt: skip


def of_memory(total: int, available: int | None, needed: int) -> Check:
    """Of the memory, beside what the largest network of the stored records took; all in bytes."""
    value = gigabytes(total) + ("" if available is None else f", {gigabytes(available)} available")
    if (total if available is None else available) >= needed:
        return Check("memory", "ok", value)
    return Check(
        "memory", "warning", value,
        f"A network of the stored smoke runs took {gigabytes(needed)}; what takes too much is killed.",
        "Close other programs, or use --jobs 1 and a smaller --batch-size.",
    )  # fmt: skip


def largest_peak() -> int:
    """The most memory in bytes that a stored record tells of."""
    return max((record.peak_memory_bytes or 0 for record in stored_records()), default=0)


def driver_version(path: Path = DRIVER) -> str | None:
    """The version of the NVIDIA driver that the kernel has loaded, or None."""
    try:
        match = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return match[1] if match else None


def without_cuda(built_for: str | None, driver: str | None, why: Callable[[], str]) -> Check:
    """Of a machine where torch finds no CUDA device.

    Args:
        built_for: the CUDA version of torch's build, None for one that knows only the CPU.
        why: tells what torch says when it is asked to begin; called only if there is a driver.
    """
    if driver is None:
        return Check("CUDA", "note", "no device, so the CPU computes", "It is slow, and no less right.")
    value = f"an NVIDIA driver {driver} is there, but torch cannot use it"
    if built_for is None:
        reason, step = "This torch is built for the CPU alone.", "Install the CUDA build of torch."
    else:
        reason = f"torch is built for CUDA {built_for}, and says: {why()}"
        step = "Update the driver, or look at CUDA_VISIBLE_DEVICES and at the container's --gpus."
    return Check("CUDA", "warning", value, f"The CPU computes, which is slow. {reason}", step)


def _why_no_cuda() -> str:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return in_one_line(error)
    return "no device is visible"


def _cuda_versions() -> str:
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    driver = driver_version()
    return f"{torch.version.cuda}, cuDNN {cudnn}" + (f", driver {driver}" if driver else "")


def look_at(device: torch.device) -> Device:
    """A CUDA device, and what it makes of a small computation."""
    title, capability, free, total = str(device), (0, 0), 0, 0
    try:
        title, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        free, total = torch.cuda.mem_get_info(device)
        return Device(str(device), title, capability, free, total, difference_from_cpu(device))
    except Exception as error:  # a broken device fails in ways that no list of errors covers
        return Device(str(device), title, capability, free, total, error=in_one_line(error))


def difference_from_cpu(device: torch.device) -> float:
    """The largest difference of a device's float32 results from float64 on the CPU.

    Of a matrix product and of a convolution, as sdabench computes them, each relative to its largest
    element. NaN if there is any among the device's.
    """
    from torchvision.ops import nms

    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 192, 192, generator=generator)
    images = torch.randn(2, 32, 24, 24, generator=generator)
    kernels = torch.randn(32, 32, 3, 3, generator=generator)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]])
    with torch.inference_mode(), strict_fp32(device):
        nms(boxes.to(device), boxes[:, 3].to(device), 0.5)  # torchvision may be built for the CPU alone
        ours = [a.to(device) @ b.to(device), F.conv2d(images.to(device), kernels.to(device))]
        exact = [a.double() @ b.double(), F.conv2d(images.double(), kernels.double())]
        differences = [
            ((result.cpu().double() - right).abs().max() / right.abs().max()).item()
            for result, right in zip(ours, exact, strict=True)
        ]
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def is_built_for(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether torch has code for a device: of its generation and not newer, or PTX that is not newer.

    Where an architecture is none of NVIDIA's, nothing speaks against it.


    Args:
        architectures: as torch lists them: ``sm_90``, ``sm_90a`` (for exactly that), ``compute_90`` (PTX).
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


def of_device(device: Device, architectures: Sequence[str]) -> Check:
    if not device.total_bytes:
        return _fails(device, device.title)
    bf16 = "bf16 in hardware" if device.capability >= NATIVE_BF16 else "no bf16 in hardware"
    value = (
        f"{device.title}, {gigabytes(device.free_bytes)} of {gigabytes(device.total_bytes)} free, "
        f"compute capability {'.'.join(map(str, device.capability))}, {bf16}"
    )
    if not is_built_for(device.capability, architectures):
        return Check(
            device.name, "problem", value, f"This torch has code only for {', '.join(architectures)}.",
            "Install a build of torch for this device, or use --device cpu.",
        )  # fmt: skip
    if device.difference is None:
        return _fails(device, value)
    if not device.difference < WRONG:  # which NaN is not
        return Check(
            device.name, "problem", value,
            f"Its results are wrong: they differ from the CPU's by {device.difference:.0e} of the largest.",
            "Do not measure on it; test its memory, and another driver.", moves_accuracy=True,
        )  # fmt: skip
    value += f", within {device.difference:.0e} of the CPU"
    if device.difference > FLOAT32_TOLERANCE:
        return Check(
            device.name, "warning", value,
            "That is less than float32 gives, as of TF32 or bf16: top-1 moves, usually by less than 0.1.",
            "Look at the line 'variables' below.", moves_accuracy=True,
        )  # fmt: skip
    if device.free_bytes < device.total_bytes / 2:
        return Check(
            device.name, "note", value, "Something else uses it: memory may run out, and times mean little."
        )
    return Check(device.name, "ok", value)


def _fails(device: Device, value: str) -> Check:
    return Check(
        device.name, "problem", value, f"A small computation on it fails: {device.error}",
        "Look at the driver and at what else uses it, or use --device cpu.",
    )  # fmt: skip
