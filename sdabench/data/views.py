"""Crop, resize and normalize decoded images for evaluation and training.

Images stay uint8 pixels until they are on the device of the model: a quarter of the bytes of float32.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import transforms

from sdabench.data.description import Preprocessing
from sdabench.models.inputs import MEAN, STD, Triple

BILINEAR = Image.Resampling.BILINEAR
Window = tuple[int, int, int, int]  # top, left, height, width in pixels


class Normalization(NamedTuple):
    """Normalize uint8 pixels with mean and standard deviation of pixels from 0 to 1."""

    mean: Triple = MEAN
    std: Triple = STD

    def __call__(self, pixels: Tensor, layout: torch.memory_format) -> Tensor:
        """Convert uint8 (N, 3, H, W) to normalized float32 on its device, bit-identical to torchvision."""
        assert pixels.dtype == torch.uint8
        # On CUDA, division by a number is not exact, but division by a tensor is.
        white, std = (_channels(values, pixels.device) for values in ((255.0,), self.std))
        if pixels.is_cuda:  # in two passes over memory instead of four; a CPU would be slower
            shift = _channels(tuple(-value for value in self.mean), pixels.device)
            images = torch.empty(pixels.shape, device=pixels.device, memory_format=layout)
            return torch.addcdiv(shift, pixels, white, out=images).div_(std)
        mean = _channels(self.mean, pixels.device)
        return pixels.to(torch.float32, memory_format=layout).div_(white).sub_(mean).div_(std)


@cache
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return a value per channel (C, 1, 1); cached per device, because the host waits for each copy."""
    with torch.inference_mode(False):  # training uses it too
        return torch.tensor(values, device=device).view(-1, 1, 1)


IMAGENET_NORMALIZATION = Normalization()


def resize_and_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resize the short side and take the center crop, bit-identical to torchvision on Pillow images.

    Pillow resizes rows first, then the columns of the rounded result, so pixels outside the crop need not be
    computed: see :func:`_crop_by_rows`. Pillow resizes columns first if an image is much higher than wide.
    """
    resize, crop = preprocessing.resize, preprocessing.crop
    other = preprocessing.interpolation != "bilinear" or crop > resize or resize & (resize - 1)
    if other or image.height > 1.5 * image.width or not _rows_are_first():
        return _torchvision_crop(image, preprocessing)
    return _crop_by_rows(image, resize, crop)


def _crop_by_rows(image: Image.Image, resize: int, crop: int) -> Image.Image:
    """Resize only the rows that the crop needs, and only its columns.

    The box along the short side is exact if ``resize`` is a power of two. The box along the long side would
    not be exact, so that side is resized completely.
    """
    (width, height), short = image.size, min(image.size)
    scale = short / resize
    wide, high = (resize if side == short else int(resize * side / short) for side in image.size)
    left, top = round((wide - crop) / 2), round((high - crop) / 2)
    first, last, reach = top * height / high, (top + crop) * height / high, max(scale, 1.0) + 1
    above, below = max(0, math.floor(first - reach)), min(height, math.ceil(last + reach))
    rows = image.crop((0, above, width, below))
    if width > short:
        rows = rows.resize((wide, below - above), BILINEAR).crop((left, 0, left + crop, below - above))
    else:
        box = (left * scale, 0, (left + crop) * scale, below - above)
        rows = rows.resize((crop, below - above), BILINEAR, box)
    if height == short:
        return rows.resize((crop, crop), BILINEAR, (0, first - above, crop, last - above))
    columns = Image.new("RGB", (crop, height))
    columns.paste(rows, (0, above))
    return columns.resize((crop, high), BILINEAR).crop((0, top, crop, top + crop))


@cache
def _rows_are_first() -> bool:
    """Return whether this version of Pillow resizes as :func:`_crop_by_rows` assumes."""
    noise = np.random.default_rng(0).integers(0, 256, (45, 60, 3), dtype=np.uint8)
    preprocessing = Preprocessing(resize=32, crop=28)
    return all(
        _crop_by_rows(image, 32, 28).tobytes() == _torchvision_crop(image, preprocessing).tobytes()
        for image in (Image.fromarray(noise), Image.fromarray(noise.transpose(1, 0, 2)))
    )


def _torchvision_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    interpolation = transforms.InterpolationMode(preprocessing.interpolation)
    resized = transforms.Resize(preprocessing.resize, interpolation)(image)
    cropped: Image.Image = transforms.CenterCrop(preprocessing.crop)(resized)
    return cropped


def resize_window(pixels: Tensor, window: Window, side: int) -> Tensor:
    """Resize a window of uint8 pixels (3, H, W) to a square, within one pixel value of Pillow's result."""
    top, left, height, width = window
    inside = pixels[None, :, top : top + height, left : left + width]
    inside = inside.contiguous(memory_format=torch.channels_last)
    return F.interpolate(inside, (side, side), mode="bilinear", antialias=True)[0]
