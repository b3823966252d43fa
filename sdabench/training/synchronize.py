"""Waiting for a device."""

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a CUDA device has finished; the CPU needs no waiting."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
