"""Evaluation's and training's view of a decoded image, and what a network takes of it.

Images are levels of 0 to 255 until they are where the network is: a quarter of the bytes of floats.
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


class Normalisation(NamedTuple):
    """From levels to what networks take."""

    mean: Triple = MEAN
    std: Triple = STD

    def __call__(self, levels: Tensor, layout: torch.memory_format) -> Tensor:
        """(N, 3, H, W) in float32 of such in uint8, where they are: torchvision's numbers to the last bit."""
        assert levels.dtype == torch.uint8
        # On CUDA, division by a number is not exact, by a tensor it is.
        white, mean, std = (
            torch.tensor(values, device=levels.device).view(-1, 1, 1)
            for values in ((255.0,), self.mean, self.std)
        )
        return levels.to(torch.float32, memory_format=layout).div_(white).sub_(mean).div_(std)


USUAL = Normalisation()


def levels_of(image: Image.Image) -> Tensor:
    """(3, H, W) in uint8, channels last in memory, of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def centre(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The centre of an image with its short side resized: torchvision's levels to the last bit.

    Pillow resizes each row, and then each column of the whole levels that this gave. What the crop leaves
    out need not be computed: see :func:`_centre_by_rows`. It takes the columns first of an image that is much
    higher than wide.
    """
    resize, crop = preprocessing.resize, preprocessing.crop
    usual = preprocessing.interpolation != "bilinear" or crop > resize or resize & (resize - 1)
    if usual or image.height > 1.5 * image.width or not _rows_are_first():
        return _usual_centre(image, preprocessing)
    return _centre_by_rows(image, resize, crop)


def _centre_by_rows(image: Image.Image, resize: int, crop: int) -> Image.Image:
    """Resizes only rows that the crop needs, and only its columns.

    Where a box begins, along the short side, is exact if ``resize`` is a power of two. Along the long one it
    would not be, and all of that is resized.
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
    """Whether this Pillow resizes images as :func:`centre` says, which could change with a release."""
    noise = np.random.default_rng(0).integers(0, 256, (45, 60, 3), dtype=np.uint8)
    preprocessing = Preprocessing(resize=32, crop=28)
    return all(
        _centre_by_rows(image, 32, 28).tobytes() == _usual_centre(image, preprocessing).tobytes()
        for image in (Image.fromarray(noise), Image.fromarray(noise.transpose(1, 0, 2)))
    )


def _usual_centre(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    interpolation = transforms.InterpolationMode(preprocessing.interpolation)
    resized = transforms.Resize(preprocessing.resize, interpolation)(image)
    cropped: Image.Image = transforms.CenterCrop(preprocessing.crop)(resized)
    return cropped


def resized_window(levels: Tensor, window: Window, side: int) -> Tensor:
    """A window of an image (3, H, W) in uint8, resized to a square: what Pillow gives, or one level off."""
    top, left, height, width = window
    inside = levels[None, :, top : top + height, left : left + width]
    inside = inside.contiguous(memory_format=torch.channels_last)
    return F.interpolate(inside, (side, side), mode="bilinear", antialias=True)[0]
