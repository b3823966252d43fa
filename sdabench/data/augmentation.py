"""Augment training images: crop, flip, policies of torchvision and timm, and random erasing."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, RandomResizedCrop, v2
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from sdabench.data.views import resize_window
from sdabench.models.inputs import MEAN, Triple
from sdabench.registry.recipe_parts import RAND_AUGMENT, TIMM, Augmentation


class Augmenter:
    """The random transform of a recipe: uint8 (3, H, W) to uint8 (3, crop, crop).

    Torch's default generator determines all random numbers. Erased pixels, and those that a policy of timm
    fills, have the ``mean`` of the normalization, which makes them about 0.
    """

    def __init__(self, settings: Augmentation, mean: Triple = MEAN) -> None:
        self.settings = settings
        self.steps: list[Callable[[Tensor], Tensor]] = []
        fill = [round(255 * value) for value in mean]
        if settings.policy is not None:
            self.steps.append(_policy(settings.policy, settings.crop, fill))
        if settings.erasing:
            self.steps.append(v2.RandomErasing(settings.erasing, value=fill))

    def __call__(self, pixels: Tensor) -> Tensor:
        area, aspect = list(self.settings.area), list(self.settings.aspect)
        if self.settings.padding:
            image = self._pad_and_crop(pixels)
        else:
            window = RandomResizedCrop.get_params(pixels, area, aspect)
            image = resize_window(pixels, window, self.settings.crop)
        flipped = torch.rand(1).item() < self.settings.flip
        image = image.flip(2) if flipped else image
        for step in self.steps:
            image = step(image)
        return image

    def _pad_and_crop(self, pixels: Tensor) -> Tensor:
        side, padding = self.settings.crop, self.settings.padding
        if pixels.shape[1:] != (side, side):
            pixels = resize_window(pixels, (0, 0, *pixels.shape[1:]), side)
        padded = F.pad(pixels, (padding,) * 4)
        top, left = torch.randint(2 * padding + 1, (2,)).tolist()
        return padded[:, top : top + side, left : left + side]


def _policy(name: str, crop: int, fill: list[int]) -> Callable[[Tensor], Tensor]:
    if name.startswith(TIMM):
        return TimmPolicy(name.removeprefix(TIMM), crop, fill)
    bilinear = InterpolationMode.BILINEAR
    if settings := RAND_AUGMENT.fullmatch(name):
        operations, magnitude = (
            int(value or usual) for value, usual in zip(settings.groups(), (2, 9), strict=True)
        )
        policy: nn.Module = v2.RandAugment(operations, magnitude, interpolation=bilinear)
    elif name == "trivialaugment":
        policy = v2.TrivialAugmentWide(interpolation=bilinear)
    elif name == "augmix":
        policy = v2.AugMix(interpolation=bilinear)
    else:
        policy = v2.AutoAugment(interpolation=bilinear)
    return policy


class TimmPolicy:
    """A policy of timm with the settings that its training script gives it."""

    def __init__(self, name: str, crop: int, fill: list[int]) -> None:
        from timm.data.auto_augment import auto_augment_transform, rand_augment_transform

        make = rand_augment_transform if name.startswith("rand") else auto_augment_transform
        self.transform = make(name, {"translate_const": int(crop * 0.45), "img_mean": tuple(fill)})

    def __call__(self, image: Tensor) -> Tensor:
        with _seeded_from_torch():
            pixels: Tensor = pil_to_tensor(self.transform(to_pil_image(image)))
        return pixels


@contextmanager
def _seeded_from_torch() -> Iterator[None]:
    """Seed the generators of Python and NumPy, which timm uses, by torch's; restore them at the end."""
    python, legacy = random.getstate(), np.random.get_state()
    seed = int(torch.randint(2**32, (1,)))
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
