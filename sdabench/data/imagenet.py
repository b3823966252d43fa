"""Read ImageNet: class folders named by wnid, with 1000 class indices."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from sdabench.data.folders import ImageSplit, Item, list_images
from sdabench.data.split import SplitName
from sdabench.errors import UsageError

TRAIN_IMAGES = 1_281_167
VAL_IMAGES = 50_000
VAL_IMAGES_PER_CLASS = 50
WNID_DESCRIPTION = "one of ImageNet's 1000 wnids (such as n01440764)"


@cache
def class_indices() -> dict[str, int]:
    """Return the index, 0 to 999, of each of the 1000 wnids."""
    text = files("sdabench.data").joinpath("imagenet_wnids.tsv").read_text()
    return {line.split("\t")[0]: index for index, line in enumerate(text.splitlines())}


def read_imagenet(path: Path, split: SplitName = "val", sizes: Mapping[str, int] | None = None) -> ImageSplit:
    """List the images of ``path/train`` or ``path/val``; validation images can be in ``path`` itself.

    Raises:
        UsageError: there is no such folder.
        DataError: there are no images, or files or folders other than class folders with images.
    """
    root = path / split
    if not root.is_dir() and split == "val":
        root = path
    if not root.is_dir():
        raise UsageError(
            f"no dataset folder at {root}; --data imagenet=PATH needs a folder with {split}/<wnid>/*.JPEG"
        )
    items = list_images(root, class_indices(), WNID_DESCRIPTION, sizes)
    complete = is_validation_set(items) if split == "val" else is_training_set(items)
    return ImageSplit("imagenet", split, root.resolve(), items, len(class_indices()), complete)


def is_validation_set(items: Sequence[Item]) -> bool:
    """Return whether these are the official images: 1000 classes of 50 images with official names."""
    if set(_images_per_class(items)) != {VAL_IMAGES_PER_CLASS}:
        return False
    names = [re.fullmatch(r".*/ILSVRC2012_val_(\d{8})\.JPEG", item.path) for item in items]
    return {int(name[1]) for name in names if name} == set(range(1, VAL_IMAGES + 1))


def is_training_set(items: Sequence[Item]) -> bool:
    """Return whether the numbers are official: 1,281,167 images in 1000 classes of at most 1300."""
    per_class = _images_per_class(items)
    return len(items) == TRAIN_IMAGES and min(per_class) > 0 and max(per_class) <= 1300


def _images_per_class(items: Sequence[Item]) -> list[int]:
    counts = Counter(item.label for item in items)
    return [counts[label] for label in range(len(class_indices()))]
