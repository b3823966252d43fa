"""Generate classification datasets in ImageNet's layout: ``train/<class>/*.JPEG`` and ``val/…``.

The folder also contains ``objects.csv`` (place and size of the object in each image) and ``dataset.json``
(the manifest). Each image depends only on (seed, split, class, number).
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    read_manifest,
    save_image,
)
from sdabench.data.synthetic.scenes import CLASSES, paint_background, paint_object, place_object, to_image
from sdabench.errors import UsageError
from sdabench.files import atomic_folder
from sdabench.registry import unknown

GENERATOR = "synthetic/1"  # increment when images change
SPLITS: tuple[SplitName, ...] = ("train", "val")
OBJECT_COLUMNS = ("path", "class", "octave", "size_px", "x_px", "y_px", "angle_deg", "width", "height")
MIN_OBJECT = 4  # pixels
OCTAVES = (-1, -2, -3)  # object size in powers of two of the short side: from 1/2 to 1, from 1/4 to 1/2, …


@dataclass(frozen=True)
class ClassificationPlan:
    """Size of a dataset; the sides of images are ``image_size`` plus or minus an eighth.

    ``classes`` are a number of classes or their names. The images of a class have each of ``octaves`` equally
    often.
    """

    classes: int | tuple[str, ...] = 10
    train_per_class: int = 200
    val_per_class: int = 50
    image_size: int = 160
    seed: int = 0
    generator: str = GENERATOR
    octaves: tuple[int, ...] = OCTAVES

    def __post_init__(self) -> None:
        names = self.categories
        for name in names:
            if name not in CLASSES:
                raise UsageError(unknown("class", name, CLASSES, f"choose from {', '.join(CLASSES)}"))
        number = self.classes if isinstance(self.classes, int) else len(names)
        if not 2 <= number <= len(CLASSES):
            raise UsageError(f"the number of classes must be 2 to {len(CLASSES)}, not {number}")
        smallest = self.image_size * 2 ** min(self.octaves)
        if max(self.octaves) > -1 or smallest < MIN_OBJECT:
            raise UsageError(
                f"the octaves must be -1 or less, and objects of {smallest:g} pixels are too small to draw; "
                f"choose octaves for objects of at least {MIN_OBJECT} pixels"
            )

    @property
    def categories(self) -> list[str]:
        """Class names in the order of their labels."""
        return sorted(CLASSES[: self.classes] if isinstance(self.classes, int) else set(self.classes))

    @property
    def images(self) -> dict[SplitName, int]:
        """Number of images per class."""
        return {"train": self.train_per_class, "val": self.val_per_class}

    @property
    def total(self) -> int:
        """Number of images of all splits."""
        return len(self.categories) * sum(self.images.values())


def write_classification(
    folder: Path, plan: ClassificationPlan, advance: Callable[[int], None] = lambda images: None
) -> None:
    """Generate a dataset; ``folder`` appears only when it is complete.

    Raises:
        UsageError: ``folder`` exists and is not empty.
        OSError: the folder cannot be written.
    """
    splits: dict[SplitName, SplitManifest] = {}
    with atomic_folder(folder) as temporary, (temporary / "objects.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, OBJECT_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for split in SPLITS:
            digests = {}
            for category in plan.categories:
                (temporary / split / category).mkdir(parents=True)
                for number in range(plan.images[split]):
                    path = f"{category}/{category}_{number:05d}.JPEG"
                    digests[path], line = _draw(temporary / split / path, plan, split, category, number)
                    writer.writerow({"path": f"{split}/{path}", **line})
                    advance(1)
            splits[split] = SplitManifest.of(_list(temporary, split, plan.categories), digests)
        manifest = Manifest(
            generator=plan.generator,
            task="classification",
            seed=plan.seed,
            classes=plan.categories,
            splits=splits,
        )
        manifest.save(temporary)


def _draw(
    path: Path, plan: ClassificationPlan, split: SplitName, category: str, number: int
) -> tuple[str, dict[str, Any]]:
    """Write one image; return its sha256 and its line of ``objects.csv``."""
    rng = np.random.default_rng([plan.seed, SPLITS.index(split), CLASSES.index(category), number])
    margin = plan.image_size // 8
    width, height = rng.integers(plan.image_size - margin, plan.image_size + margin + 1, 2)
    octave = plan.octaves[number % len(plan.octaves)]
    size = min(width, height) * 2 ** (octave + rng.random())
    item = place_object(rng, category, width, height, size)
    canvas = paint_background(rng, width, height)
    paint_object(rng, canvas, item)
    digest = save_image(to_image(canvas), path, quality=int(rng.integers(85, 96)))
    return digest, {
        "class": category,
        "octave": octave,
        "size_px": round(item.size, 2),
        "x_px": round(item.x, 2),
        "y_px": round(item.y, 2),
        "angle_deg": round(degrees(item.angle), 2),
        "width": width,
        "height": height,
    }


def read_classification(folder: Path, split: SplitName, sizes: Mapping[str, int] | None = None) -> ImageSplit:
    """List the images of a split.

    Raises:
        UsageError: there is no such folder, or the dataset is for another task.
        DataError: the folder is not a generated dataset, or was changed.
    """
    manifest = read_manifest(folder, "classification")
    listing = _list(folder, split, manifest.classes, sizes)
    return manifest.add_fingerprint(listing, folder, check=sizes is None)


def _list(
    folder: Path, split: SplitName, classes: list[str], sizes: Mapping[str, int] | None = None
) -> ImageSplit:
    labels = {name: index for index, name in enumerate(classes)}
    items = list_images(folder / split, labels, f"one of the {len(classes)} classes of {MANIFEST}", sizes)
    root = (folder / split).resolve()
    return ImageSplit("synthetic", split, root, items, len(classes), class_names=tuple(classes))
