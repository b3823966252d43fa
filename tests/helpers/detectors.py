"""Build small detectors, targets and feature maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import nn

from sdabench.models.build import create_trunk
from sdabench.models.detection.detector import Detector
from sdabench.models.detection.masks import PackedMasks

STRIDES = [4, 8, 16, 32, 64]


def small_detector(
    masks: bool = False, backbone: str = "resnet50", frozen: bool = False, **options: Any
) -> Detector:
    torch.manual_seed(0)
    options = {"num_classes": 3, "min_size": 64, "max_size": 128} | options
    return Detector(create_trunk(backbone), masks=masks, **options).freeze(frozen)


def meta_detector(**options: Any) -> Detector:
    """Build a detector on the meta device, for tests that need no weights."""
    with torch.device("meta"):
        return small_detector(**options)


def rle_of(mask: Any) -> dict[str, Any]:
    rle: dict[str, Any] = coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))
    return rle


def rectangle_mask(box: Sequence[float], height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width))
    left, top, right, bottom = (int(edge) for edge in box)
    mask[top:bottom, left:right] = 1
    return mask


def target_of(
    boxes: list[list[float]], labels: list[int], size: tuple[int, int] = (64, 64)
) -> dict[str, Any]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": PackedMasks.of([rle_of(rectangle_mask(box, *size)) for box in boxes], size),
    }


def two_images_and_targets() -> tuple[list[torch.Tensor], list[dict[str, Any]]]:
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 96)]
    return images, [
        target_of([[5, 5, 40, 50], [20, 30, 60, 60]], [1, 3]),
        target_of([[8, 8, 90, 50]], [2], (64, 96)),
    ]


def zero_maps(height: int, width: int, channels: int = 1, strides: list[int] = STRIDES) -> list[torch.Tensor]:
    return [torch.zeros(1, channels, -(-height // stride), -(-width // stride)) for stride in strides]


class Constant(nn.Module):
    """A module with the same outputs for every input."""

    def __init__(self, *outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs if len(outputs) > 1 else outputs[0]

    def forward(self, x: Any) -> Any:
        return self.outputs
