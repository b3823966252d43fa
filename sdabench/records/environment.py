"""The environment of a record: versions, device, arithmetic settings and git revision."""

import os
import platform
import subprocess
from typing import Any, Literal

import torch

import sdabench
from sdabench.models.depth_attention import kernels_work
from sdabench.packages import installed_version
from sdabench.paths import checkout_dir
from sdabench.processes import NETWORKS_AT_ONCE
from sdabench.registry import load_registry, plugins_of

PACKAGES = ("torch", "torchvision", "fvcore", "numpy", "Pillow")


def environment(
    device: torch.device, model: str | None = None, *, compiled: bool = False, fused_optimizer: bool = False
) -> dict[str, Any]:
    """Collect versions, device and settings as JSON values, with the plugins that define the ``model``.

    ``compiled`` and ``fused_optimizer`` are stated if the network and the optimizer are, ``cudnn_benchmark``
    if cuDNN selects algorithms by timing, and whether kernels compute depth attention on large maps on a GPU
    if the ``model`` has it.
    """
    cuda = device.type == "cuda"
    plugins = plugins_of(model) if model else []
    attention = model is not None and load_registry().model(model).depth_attention
    stated = {each.name: {"version": each.version, "sha256": each.sha256} for each in plugins}
    return (
        ({"plugins": stated} if stated else {})
        | {
            "sdabench": sdabench.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: installed_version(name) for name in PACKAGES},
            "device": torch.cuda.get_device_name(device) if cuda else device.type,
            "threads": torch.get_num_threads(),
            "networks_at_once": int(os.environ.get(NETWORKS_AT_ONCE, "1")),
            "cuda": torch.version.cuda if cuda else None,
            "cudnn": torch.backends.cudnn.version() if cuda else None,  # type: ignore[no-untyped-call]
            "tf32_convolutions": cuda and allows_tf32("cudnn", "conv"),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "tf32_matmul": cuda and allows_tf32("cuda", "matmul"),
        }
        | ({"compiled": True} if compiled else {})
        | ({"fused_optimizer": True} if fused_optimizer else {})
        | ({"cudnn_benchmark": True} if cuda and torch.backends.cudnn.benchmark else {})
        | ({"depth_attention_kernels": _kernels_work(device)} if cuda and attention else {})
    )


def _kernels_work(device: torch.device) -> bool:
    return kernels_work(torch.cuda.current_device() if device.index is None else device.index)


def allows_tf32(backend: Literal["cuda", "cudnn"], operation: Literal["conv", "matmul"]) -> bool:
    """Return whether torch allows TF32 for convolutions of cuDNN or for matrix products of CUDA.

    The older ``allow_tf32`` raises an error in a process that used ``fp32_precision``, of torch 2.9.
    """
    of_backend = getattr(torch.backends, backend)
    settings = getattr(of_backend, operation, of_backend)
    if hasattr(settings, "fp32_precision"):
        return bool(settings.fp32_precision == "tf32")
    return bool(settings.allow_tf32)


def git_revision() -> str | None:
    """Return the commit of this checkout, with ``-dirty`` if files have changed; None if installed."""
    checkout = checkout_dir()
    if checkout is None:
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
