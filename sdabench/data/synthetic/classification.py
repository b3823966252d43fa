"""Generate classification datasets in ImageNet's layout: ``train/<class>/*.JPEG`` and ``val/…``.

The folder also contains ``objects.csv`` (place and size of the object in each image) and ``dataset.json``
(the manifest). Each image depends only on (seed, split, class, number).
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
from sdabench.data.synthetic.manifest import (
    MANIFEST,
    Manifest,
    SplitManifest,
    atomic_folder,
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

GENERATOR = "synthetic/1"  # increment when images change
SPLITS: tuple[SplitName, ...] = ("train", "val")
OBJECT_COLUMNS = ("path", "class", "octave", "size_px", "x_px", "y_px", "angle_deg", "width", "height")
OCTAVES = (-1, -2, -3)  # object size in powers of two of the short side: from 1/2 to 1, from 1/4 to 1/2, …


@dataclass(frozen=True)
class ClassificationPlan:
    """Size of a dataset; the sides of images are ``image_size`` plus or minus an eighth."""

    classes: int = 10
    train_per_class: int = 200
    val_per_class: int = 50
    image_size: int = 160
    seed: int = 0
    generator: str = GENERATOR

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= len(CLASSES):
            raise UsageError(f"the number of classes must be 2 to {len(CLASSES)}, not {self.classes}")

    @property
    def categories(self) -> list[str]:
        """Class names in the order of their labels."""
        return sorted(CLASSES[: self.classes])

    @property
    def images(self) -> dict[SplitName, int]:
        """Number of images per class."""
        return {"train": self.train_per_class, "val": self.val_per_class}

    @property
    def total(self) -> int:
        """Number of images of all splits."""
        return self.classes * sum(self.images.values())


@dataclass(frozen=True)
class _Job:
    plan: ClassificationPlan
    split: SplitName
    category: str
    number: int

    @property
    def path(self) -> str:
        """Path relative to the folder of the split."""
        return f"{self.category}/{self.category}_{self.number:05d}.JPEG"

    def draw(self, folder: Path) -> tuple[str, dict[str, Any]]:
        """Write the image; return its sha256 and its line of ``objects.csv``."""
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
    """Generate a dataset; ``folder`` appears only when it is complete.

    Args:
        advance: called with the number of images just generated.

    Raises:
        UsageError: ``folder`` exists and is not empty.
        OSError: the folder cannot be written.
    """
    jobs = [
        _Job(plan, split, category, number)
        for split in SPLITS
        for category in plan.categories
        for number in range(plan.images[split])
    ]
    with atomic_folder(folder) as temporary:
        for split in SPLITS:
            for category in plan.categories:
                (temporary / split / category).mkdir(parents=True)
        digests: dict[SplitName, dict[str, str]] = {split: {} for split in SPLITS}
        with (temporary / "objects.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, OBJECT_COLUMNS, lineterminator="\n")
            writer.writeheader()
            for job in jobs:
                digests[job.split][job.path], line = job.draw(temporary)
                writer.writerow(line)
                advance(1)
        splits = {split: SplitManifest.of(temporary / split, digests[split]) for split in SPLITS}
        manifest = Manifest(
            generator=plan.generator,
            task="classification",
            seed=plan.seed,
            classes=plan.categories,
            splits=splits,
        )
        manifest.save(temporary)


def read_classification(folder: Path, split: SplitName, sizes: Mapping[str, int] | None = None) -> ImageSplit:
    """List the images of a split.

    Args:
        sizes: see :func:`sdabench.data.folders.list_images`.

    Raises:
        UsageError: there is no such folder, or the dataset is for another task.
        DataError: the folder is not a generated dataset, or was changed.
    """
    manifest = read_manifest(folder, "classification")
    listing = _list(folder, split, manifest.classes, sizes)
    made = manifest.splits[split]
    if sizes is None and listing.listing_sha256 != made.listing_sha256:
        raise DataError(
            f"the images in {folder / split} have changed since they were generated; delete {folder} and "
            "generate it again"
        )
    return replace(listing, fingerprint_sha256=made.fingerprint_sha256)


def _list(
    folder: Path, split: SplitName, classes: list[str], sizes: Mapping[str, int] | None = None
) -> ImageSplit:
    labels = {name: index for index, name in enumerate(classes)}
    items = list_images(folder / split, labels, f"one of the {len(classes)} classes of {MANIFEST}", sizes)
    return ImageSplit("synthetic", split, (folder / split).resolve(), items, len(classes))
