"""Convert between masks in COCO's RLE and the square masks inside boxes, one at a time to save memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.ops  # noqa: F401  # registers the operators
from pycocotools import mask as coco_mask
from torch import Tensor

RLE = dict[str, Any]  # {"size": [height, width], "counts": …}


def roi_align(maps: Tensor, boxes: Tensor, side: int, scale: float = 1.0) -> Tensor:
    """Pool boxes (P, 5) of maps (N, C, H, W) to (P, C, side, side), aligned and with adaptive sampling.

    The first column of the boxes is the index of their map; the others are corners, and ``scale`` times a
    corner is a position of the map. This is the operator of torchvision, whose function runs another one in
    deterministic mode, which needs a compiler and memory for all samples. The operator is deterministic on
    every device; its backward pass is not on CUDA, where it raises an error in deterministic mode.
    """
    pooled: Tensor = torch.ops.torchvision.roi_align(maps, boxes, scale, side, side, 0, True)
    return pooled


def mask_targets(
    masks: Sequence[RLE], matched: Tensor, boxes: Tensor, image: tuple[int, int], resolution: int
) -> Tensor:
    """Compute the mask targets inside boxes (P, 4): (P, resolution, resolution) with values 0 and 1.

    ``matched`` (P,) are indices of ``masks``, whose size may differ from that of the ``image`` (height,
    width) that the boxes refer to.
    """
    targets = boxes.new_zeros(len(boxes), resolution, resolution)
    for index in matched.unique().tolist():
        own = matched == index
        mask = torch.as_tensor(coco_mask.decode(masks[index]), device=boxes.device).to(boxes.dtype)
        scale = boxes.new_tensor([mask.shape[1] / image[1], mask.shape[0] / image[0]]).repeat(2)
        inside = F.pad(boxes[own] * scale, (1, 0))  # the image has index 0
        targets[own] = roi_align(mask[None, None], inside, resolution)[:, 0]
    return (targets >= 0.5).to(boxes.dtype)


def paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[RLE]:
    """Convert probabilities (N, h, w) inside boxes (N, 4) to RLEs of an image of ``size`` (height, width)."""
    height, width = size
    encoded = []
    for probability, box in zip(probabilities.float().cpu(), boxes.float().cpu(), strict=True):
        canvas = np.zeros((height, width), dtype=np.uint8, order="F")
        left, top = (max(0, int(edge.floor()) - 1) for edge in box[:2])
        right, bottom = min(int(box[2].ceil()) + 1, width), min(int(box[3].ceil()) + 1, height)
        sides = (box[2:] - box[:2]).clamp(min=1e-6)
        x = (torch.arange(left, max(left, right)) + 0.5 - box[0]) / sides[0] * 2 - 1
        y = (torch.arange(top, max(top, bottom)) + 0.5 - box[1]) / sides[1] * 2 - 1
        if len(x) and len(y):
            grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
            inside = F.grid_sample(probability[None, None], grid[None], align_corners=False)[0, 0] >= 0.5
            canvas[top : top + len(y), left : left + len(x)] = inside.numpy()
        rle = coco_mask.encode(canvas)
        encoded.append({"size": [height, width], "counts": rle["counts"].decode()})
    return encoded
