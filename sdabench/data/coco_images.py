"""Datasets and batches for detectors: resized images of COCO with boxes, labels and masks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import pil_to_tensor

from sdabench.data.coco import Annotation, CocoImage, CocoSplit
from sdabench.data.decoded import decoded_images
from sdabench.data.description import Resizing
from sdabench.data.images import decode, move, seeded
from sdabench.data.masks import compressed_rle, mask_problem
from sdabench.errors import DataError
from sdabench.models.detection.masks import PackedMasks
from sdabench.models.inputs import resized_shape

Target = dict[str, Any]  # boxes (N, 4) as corners in pixels, labels (N,) from 1, masks


@dataclass(frozen=True)
class DetectionSample:
    """One resized uint8 image (3, H, W), its target in training, and the sha256 of its file."""

    image: Tensor
    target: Target | None
    index: int
    sha256: str


@dataclass(frozen=True)
class DetectionBatch:
    """Images of different sizes; ``skipped`` are the errors of images that were left out."""

    images: list[Tensor]
    targets: list[Target]
    indices: list[int]
    sha256: list[str]
    skipped: list[str]

    @classmethod
    def of(cls, samples: Sequence[DetectionSample], skipped: list[str]) -> "DetectionBatch":
        return cls(
            images=[sample.image for sample in samples],
            targets=[sample.target or {} for sample in samples],
            indices=[sample.index for sample in samples],
            sha256=[sample.sha256 for sample in samples],
            skipped=skipped,
        )

    def __len__(self) -> int:
        return len(self.images)

    def micro_batches(self, count: int) -> Iterator["DetectionBatch"]:
        """Split into ``count`` micro-batches of nearly equal size."""
        for chosen in np.array_split(np.arange(len(self)), count):
            yield replace(
                self,
                images=[self.images[i] for i in chosen],
                targets=[self.targets[i] for i in chosen],
                indices=[self.indices[i] for i in chosen],
                sha256=[self.sha256[i] for i in chosen],
            )

    def to(self, device: torch.device, layout: torch.memory_format) -> Self:
        """Move to a device, and scale the images to values from 0 to 1."""
        there = self.mapped(partial(move, device=device))
        return replace(there, images=[image.float() / 255 for image in there.images])

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the batch with ``change`` applied to each tensor."""
        targets = [
            {
                key: value.mapped(change) if isinstance(value, PackedMasks) else change(value)
                for key, value in target.items()
            }
            for target in self.targets
        ]
        return replace(self, images=[change(image) for image in self.images], targets=targets)

    def pin_memory(self) -> Self:
        return self.mapped(Tensor.pin_memory)


class DetectionImages(Dataset[DetectionSample | DataError]):
    """Images of a split under the evaluation protocol."""

    def __init__(self, split: CocoSplit, resizing: Resizing) -> None:
        self.split, self.resizing = split, resizing
        self.decoded = decoded_images(split)

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, index: int) -> DetectionSample | DataError:
        item = self.split.items[index]
        read = decode(self.split.file(item), (item.width, item.height), self.decoded)
        if isinstance(read, DataError):
            return read
        image, digest = read
        size = resized_shape(item.height, item.width, self.resizing.short, self.resizing.long)
        return DetectionSample(resize_image(image, size), None, index, digest)


class DetectionTrainingImages(Dataset[DetectionSample | DataError]):
    """Images of a split and their targets, with random flips that depend only on (seed, epoch, index).

    :meth:`sdabench.data.coco.CocoImage.why_unused` defines which annotations are left out.
    """

    def __init__(self, split: CocoSplit, resizing: Resizing, flip: float, seed: int, masks: bool) -> None:
        self.split, self.resizing = split, resizing
        self.decoded = decoded_images(split)
        self.flip, self.seed, self.masks = flip, seed, masks

    def __getitem__(self, key: tuple[int, int]) -> DetectionSample | DataError:
        epoch, index = key
        item = self.split.items[index]
        read = decode(self.split.file(item), (item.width, item.height), self.decoded)
        if isinstance(read, DataError):
            return read
        size = resized_shape(item.height, item.width, self.resizing.short, self.resizing.long)
        with seeded(self.seed, epoch, index):
            flipped = torch.rand(1).item() < self.flip
        image = resize_image(read[0], size)
        try:
            target = detection_target(item, size, flipped, self.masks)
        except DataError as error:
            return error
        if self.masks:
            target["masks"] = PackedMasks.of(target["masks"], size)
        return DetectionSample(image.flip(2) if flipped else image, target, index, read[1])


def detection_target(item: CocoImage, size: tuple[int, int], flipped: bool, masks: bool) -> Target:
    """Compute the target of an image that is resized to (height, width) and optionally flipped.

    Its masks are RLEs of COCO.

    Raises:
        DataError: an object has no mask although ``masks`` are requested.
    """
    height, width = size
    scale = np.array([width / item.width, height / item.height] * 2)
    annotations = [one for one in item.annotations if item.why_unused(one, masks) is None]
    corners = np.array([_corners(annotation) for annotation in annotations], dtype=np.float64).reshape(-1, 4)
    boxes = (corners * scale).clip(0, [width, height] * 2).astype(np.float32)
    if flipped:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    valid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # float32 can collapse a box at the border
    boxes, annotations = boxes[valid], list(compress(annotations, valid))
    target: Target = {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.tensor([annotation.label + 1 for annotation in annotations], dtype=torch.int64),
    }
    if masks:
        target["masks"] = [_mask(annotation, item, size, flipped) for annotation in annotations]
    return target


def _corners(annotation: Annotation) -> tuple[float, float, float, float]:
    x, y, width, height = annotation.bbox
    return x, y, x + width, y + height


def _mask(annotation: Annotation, item: CocoImage, size: tuple[int, int], flipped: bool) -> dict[str, Any]:
    """Resize an object's mask: scale polygons, and interpolate RLEs to the nearest pixel."""
    height, width = size
    if problem := mask_problem(annotation.segmentation, (item.height, item.width)):
        raise DataError(
            f"{item.path}: annotation {annotation.id} {problem}; complete the annotations, or train a "
            "Faster R-CNN"
        )
    if isinstance(annotation.segmentation, dict):
        rle = compressed_rle(annotation.segmentation, item.height, item.width)
        mask = torch.as_tensor(coco_mask.decode(rle))[None, None]
        mask = F.interpolate(mask, size, mode="nearest")[0, 0]
        mask = mask.flip(1) if flipped else mask
        encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.numpy()))
        return encoded
    polygons = []
    for polygon in annotation.segmentation or []:
        scale = (width / item.width, height / item.height)
        points = np.array(polygon, dtype=np.float64).reshape(-1, 2) * scale
        if flipped:
            points[:, 0] = width - points[:, 0]
        polygons.append(points.flatten().tolist())
    return compressed_rle(polygons, height, width)


def resize_image(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Resize to uint8 pixels (3, height, width), without antialiasing, as OpenCV does."""
    pixels: Tensor = pil_to_tensor(image)[None]
    if size != (image.height, image.width):
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
    return pixels[0].contiguous()
