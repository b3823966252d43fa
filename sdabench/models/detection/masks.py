"""Convert between masks in COCO's RLE and the square masks inside boxes, a few at a time to save memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.ops  # noqa: F401  # registers the operators
from pycocotools import mask as coco_mask
from torch import Tensor

MASKS_PER_BLOCK = 8  # that are unpacked to float32 at a time
PASTED_PIXELS = 2**25  # at a time on a GPU
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


@dataclass(frozen=True, eq=False)
class PackedMasks:
    """The masks of an image (H, W): ``bits`` (N, H, ceil(W / 8)) as np.packbits packs their rows."""

    bits: Tensor
    width: int

    @classmethod
    def of(cls, masks: Sequence[RLE], size: tuple[int, int]) -> "PackedMasks":
        """Decode and pack masks of ``size`` (height, width)."""
        height, width = size
        bits = np.zeros((len(masks), height, -(-width // 8)), dtype=np.uint8)
        for index, mask in enumerate(masks):
            bits[index] = np.packbits(coco_mask.decode(mask), axis=1)
        return cls(torch.from_numpy(bits), width)

    def __len__(self) -> int:
        return len(self.bits)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "PackedMasks":
        return PackedMasks(change(self.bits), self.width)

    def unpacked(self, rows: Tensor) -> Tensor:
        """Return the masks (P, H, W) at indices (P,), with values 0 and 1 in uint8."""
        shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=self.bits.device)
        return (self.bits[rows][..., None] >> shifts & 1).flatten(2)[..., : self.width]


def mask_targets(
    masks: PackedMasks, matched: Tensor, boxes: Tensor, image: tuple[int, int], resolution: int
) -> Tensor:
    """Compute the mask targets inside boxes (P, 4): (P, resolution, resolution) with values 0 and 1.

    ``matched`` (P,) are indices of ``masks``, whose size may differ from that of the ``image`` (height,
    width) that the boxes refer to.
    """
    targets = boxes.new_zeros(len(boxes), resolution, resolution)
    height, width = masks.bits.shape[1], masks.width
    if (height, width) != image:
        boxes = boxes * boxes.new_tensor([width / image[1], height / image[0]]).repeat(2)
    used, place = matched.unique(return_inverse=True)
    for start in range(0, len(used), MASKS_PER_BLOCK):
        block = used[start : start + MASKS_PER_BLOCK]
        rows = torch.where((place >= start) & (place < start + len(block)))[0]
        inside = torch.cat([(place[rows] - start)[:, None].to(boxes.dtype), boxes[rows]], dim=1)
        unpacked = masks.unpacked(block)[:, None].to(boxes.dtype)
        targets[rows] = roi_align(unpacked, inside, resolution)[:, 0]
    return (targets >= 0.5).to(boxes.dtype)


def paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[RLE]:
    """Convert probabilities (N, h, w) inside boxes (N, 4) to RLEs of an image of ``size`` (height, width).

    A GPU samples whole images, some at a time, and returns the pixels where the runs of an RLE begin. A CPU
    samples only the pixels in the boxes.
    """
    if probabilities.is_cuda and len(probabilities):
        block = max(1, PASTED_PIXELS // (size[0] * size[1]))
        pairs = zip(probabilities.float().split(block), boxes.float().cpu().split(block), strict=True)
        return [rle for part, own in pairs for rle in _paste_on_device(part, own, size)]
    return [
        _rle(_paste_one(probability, box, size))
        for probability, box in zip(probabilities.float(), boxes.float().cpu(), strict=True)
    ]


def _paste_one(probability: Tensor, box: Tensor, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    canvas = np.zeros((height, width), dtype=np.uint8, order="F")
    left, top = (max(0, int(edge.floor()) - 1) for edge in box[:2])
    right, bottom = min(int(box[2].ceil()) + 1, width), min(int(box[3].ceil()) + 1, height)
    x, y = _positions(box[None], (torch.arange(left, max(left, right)), torch.arange(top, max(top, bottom))))
    if x.numel() and y.numel():
        inside = _sample(probability[None], x, y)[0]
        canvas[top : top + len(inside), left : left + inside.shape[1]] = inside.numpy()
    return canvas


def _paste_on_device(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[RLE]:
    height, width = size
    x, y = _positions(boxes, (torch.arange(width), torch.arange(height)))
    inside = _sample(probabilities, x.to(probabilities.device), y.to(probabilities.device))
    columns = F.pad(inside.transpose(1, 2).flatten(1).byte(), (1, 0))  # COCO's order, after a zero
    masks, starts = torch.where(columns[:, 1:] != columns[:, :-1])
    found = torch.stack([masks, starts]).cpu().numpy()
    encoded = []
    for index in range(len(boxes)):
        runs = np.diff(found[1, found[0] == index], prepend=0, append=height * width)
        encoded.append({"size": [height, width], "counts": runs.tolist()})
    return [
        {"size": [height, width], "counts": each["counts"].decode()}
        for each in coco_mask.frPyObjects(encoded, height, width)
    ]


def _positions(boxes: Tensor, pixels: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the centers of pixels by column and row, from -1 to 1 inside boxes (N, 4): (N, W) and (N, H)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    x, y = (
        (each + 0.5 - boxes[:, axis, None]) / sides[:, axis, None] * 2 - 1 for axis, each in enumerate(pixels)
    )
    return x, y


def _sample(probabilities: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return which pixels (N, H, W) at positions (N, W) and (N, H) belong to the objects."""
    shape = len(x), y.shape[1], x.shape[1]
    grid = torch.stack([x[:, None].expand(shape), y[:, :, None].expand(shape)], dim=-1)
    return F.grid_sample(probabilities[:, None], grid, align_corners=False)[:, 0] >= 0.5


def _rle(mask: np.ndarray) -> RLE:
    height, width = mask.shape
    return {"size": [height, width], "counts": coco_mask.encode(mask)["counts"].decode()}
