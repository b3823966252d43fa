"""Decode common JPEG files directly to tensors, for training."""

import warnings

import torch
from torch import Tensor
from torchvision import io


def decode_jpeg(data: bytes) -> Tensor | None:
    """Decode a JPEG file to uint8 (3, H, W), channels last in memory, with the same pixels as Pillow.

    Returns None for files that Pillow should decode: other formats and color spaces, broken files (for
    Pillow's error message), and all files if torchvision has no decoder, which is planned for a release.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the planned removal, and of read-only bytes
            pixels: Tensor = io.decode_jpeg(torch.frombuffer(data, dtype=torch.uint8))
    except (AttributeError, RuntimeError):
        return None
    return pixels.expand(3, -1, -1) if len(pixels) in (1, 3) else None
