"""Decoding usual JPEG files straight into tensors, for training."""

import warnings

import torch
from torch import Tensor
from torchvision import io


def decode_jpeg(data: bytes) -> Tensor | None:
    """(3, H, W) in uint8, channels last in memory: Pillow's pixels; None for what it should decode.

    That is all that is no JPEG file in grey or RGB, what is broken, so that the error is its, and everything
    where torchvision has no decoder, which a future release is to leave out.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the future release, and that bytes cannot be written to
            levels: Tensor = io.decode_jpeg(torch.frombuffer(data, dtype=torch.uint8))
    except (AttributeError, RuntimeError):
        return None
    return levels.expand(3, -1, -1) if len(levels) in (1, 3) else None
