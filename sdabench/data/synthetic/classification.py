"""A generated classification dataset in ImageNet's layout: ``train/<class>/*.JPEG`` and ``val/…``.

Beside the images lie ``objects.csv`` (where each image's object is, and how large) and ``dataset.json``
(what was made, and its fingerprints). Each image follows from (seed, split, class, number) alone.
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import degrees
from pathlib import Path
from typing import Any

import numpy as np

from sdabench.data.folders import ImageSplit, list_images
from sdabench.data.split import SplitName
from sdabench.data.synthetic.files import (
    MANIFEST,
    Manifest,
    SplitManifest,
    building,
    read_manifest,
    save_image,
)
from sdabench.data.synthetic.scenes import (
    CLASSES,
    TexturedObject,
    paint_background,
    paint_object,
    place_object,
    to_image,
)
from sdabench.errors import DataError, UsageError

GENERATOR = "synthetic/1"  # another number whenever another picture comes out
SPLITS: tuple[SplitName, ...] = ("train", "val")
OBJECT_COLUMNS = ("path", "class", "octave", "size_px", "x_px", "y_px", "angle_deg", "width", "height")
OCTAVES = (-1, -2, -3)  # the object's size: from half the image's short side to all of it, and so on


@dataclass(frozen=True)
class ClassificationPlan:
    """What to make: images of ``image_size`` pixels, give or take an eighth on each side."""

    classes: int = 10
    train_per_class: int = 200
    val_per_class: int = 50
    image_size: int = 160
    seed: int = 0
    generator: str = GENERATOR

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= len(CLASSES):
            raise UsageError(f"there are 2 to {len(CLASSES)} classes to draw, not {self.classes}")

    @property
    def categories(self) -> list[str]:
        """The class names, in the order of their labels."""
        return sorted(CLASSES[: self.classes])

    @property
    def images(self) -> dict[SplitName, int]:
        """How many images each class has."""
        return {"train": self.train_per_class, "val": self.val_per_class}

    @property
    def total(self) -> int:
        """How many images there are in all."""
        return self.classes * sum(self.images.values())


@dataclass(frozen=True)
class _Job:
    plan: ClassificationPlan
    split: SplitName
    category: str
    number: int

    @property
    def path(self) -> str:
        """In the folder of its split."""
        return f"{self.category}/{self.category}_{self.number:05d}.JPEG"

    def draw(self, folder: Path) -> tuple[str, dict[str, Any]]:
        """Writes the image; returns its sha256 and its line of ``objects.csv``."""
        seed = [self.plan.seed, SPLITS.index(self.split), CLASSES.index(self.category), self.number]
        rng = np.random.default_rng(seed)
        margin = self.plan.image_size // 8
        width, height = rng.integers(self.plan.image_size - margin, self.plan.image_size + margin + 1, 2)
        octave = OCTAVES[self.number % len(OCTAVES)]
        size = min(width, height) * 2 ** (octave + rng.random())
        item = place_object(rng, self.category, width, height, size)
        canvas = paint_background(rng, width, height)
        paint_object(rng, canvas, item)
        digest = save_image(
            to_image(canvas), folder / self.split / self.path, quality=int(rng.integers(85, 96))
        )
        return digest, self._describe(item, octave, width, height)

    def _describe(self, item: TexturedObject, octave: int, width: int, height: int) -> dict[str, Any]:
        return {
            "path": f"{self.split}/{self.path}",
            "class": self.category,
            "octave": octave,
            "size_px": round(item.size, 2),
            "x_px": round(item.x, 2),
            "y_px": round(item.y, 2),
            "angle_deg": round(degrees(item.angle), 2),
            "width": width,
            "height": height,
        }


def write_classification(
    folder: Path, plan: ClassificationPlan, advance: Callable[[int], None] = lambda images: None
) -> None:
    """Makes the dataset at ``folder``, which appears only when it is whole.

    Args:
        advance: called with the number of images just made.

    Raises:
        UsageError: there is something at ``folder`` already.
        OSError: it cannot be written.
    """
    jobs = [
        _Job(plan, split, category, number)
        for split in SPLITS
        for category in plan.categories
        for number in range(plan.images[split])
    ]
    with building(folder) as part:
        for split in SPLITS:
            for category in plan.categories:
                (part / split / category).mkdir(parents=True)
        digests: dict[SplitName, dict[str, str]] = {split: {} for split in SPLITS}
        with (part / "objects.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, OBJECT_COLUMNS, lineterminator="\n")
            writer.writeheader()
            for job in jobs:
                digests[job.split][job.path], line = job.draw(part)
                writer.writerow(line)
                advance(1)
        splits = {split: SplitManifest.of(part / split, digests[split]) for split in SPLITS}
        manifest = Manifest(
            generator=plan.generator,
            task="classification",
            seed=plan.seed,
            classes=plan.categories,
            splits=splits,
        )
        manifest.save(part)


def read_classification(folder: Path, split: SplitName, sizes: Mapping[str, int] | None = None) -> ImageSplit:
    """The images of a split of a generated dataset.

    Args:
        sizes: see :func:`sdabench.data.folders.list_images`.

    Raises:
        UsageError: there is no such folder, or it was made for another task.
        DataError: it is no generated dataset, or not what it was when it was made.
    """
    manifest = read_manifest(folder, "classification")
    listing = _list(folder, split, manifest.classes, sizes)
    made = manifest.splits[split]
    if sizes is None and listing.listing_sha256 != made.listing_sha256:
        raise DataError(
            f"the images in {folder / split} are not those that were made; delete {folder} and make it anew"
        )
    return replace(listing, fingerprint_sha256=made.fingerprint_sha256)


def _list(
    folder: Path, split: SplitName, classes: list[str], sizes: Mapping[str, int] | None = None
) -> ImageSplit:
    labels = {name: index for index, name in enumerate(classes)}
    items = list_images(folder / split, labels, f"one of the {len(classes)} classes of {MANIFEST}", sizes)
    return ImageSplit("synthetic", split, (folder / split).resolve(), items, len(classes))
