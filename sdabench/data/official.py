"""The official splits: what is known of them, and how a split differs. Free of torch."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from sdabench.data.classes import coco_categories
from sdabench.data.folders import ImageSplit

CLASSES = 1000
VAL_IMAGES, TRAIN_IMAGES = 50_000, 1_281_167
VAL_IMAGES_PER_CLASS, TRAIN_IMAGES_PER_CLASS = (50, 50), (732, 1300)  # smallest and largest class
# Hugging Face's copies have the wnid at the end too.
VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})(_n\d{8})?\.JPEG", re.ASCII)
TRAIN_NAME = re.compile(r"(n\d{8})/\1_\d+(_\1)?\.JPEG", re.ASCII)


class Archive(NamedTuple):
    """Size in bytes of a tar archive, and the number of archives: one per class within that of training."""

    size: int
    archives: int

    def sizes(self, images: int) -> tuple[int, int]:
        """Return the least and the largest possible total size in bytes of so many images.

        Each has a header of 512 bytes and is padded to a multiple of 512; an archive ends with 1024 bytes
        and is padded to a multiple of 10,240.
        """
        ends = self.archives * (512 + 1024 + 10_240)
        return self.size - images * (512 + 511) - ends, self.size - images * 512


VAL_ARCHIVE = Archive(6_744_924_160, 1)
TRAIN_ARCHIVE = Archive(147_897_477_120, 1 + CLASSES)


class CocoFacts(NamedTuple):
    """A split of COCO 2017: numbers of images and annotations, and bytes of the zip archive of its images."""

    images: int
    annotations: int
    archive_bytes: int


COCO = {
    "train": CocoFacts(118_287, 860_001, 19_336_861_798),
    "val": CocoFacts(5_000, 36_781, 815_585_330),
}
COMPRESSION = (0.98, 1.1)  # bounds of the size of JPEG files relative to their zip archive

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class AffectedFile:
    """A file or class folder, and a message that continues a sentence beginning with its path."""

    path: str
    what: str


@dataclass(frozen=True)
class Issue:
    """An issue of a dataset: a fixed identifier ``kind``, a message, and the affected files.

    The level is "error" if the data are invalid.
    """

    level: Level
    kind: str
    words: str
    about: tuple[AffectedFile, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def plural(count: int, one: str, many: str | None = None) -> str:
    """Format a count with its noun: 1 file, 2 files."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


@cache
def val_labels() -> tuple[int, ...]:
    """Return the class index of each official validation image, in the order of their numbers."""
    packed = int.from_bytes(files("sdabench.data").joinpath("imagenet_val_labels.bin").read_bytes())
    bits = f"{packed:0{10 * VAL_IMAGES}b}"  # ten for each image
    return tuple(int(bits[start : start + 10], 2) for start in range(0, len(bits), 10))


def val_number(name: str) -> int | None:
    """Return the number of a validation image from its file name with any extension, or None."""
    match = VAL_NAME.fullmatch(f"{PurePosixPath(name).stem}.JPEG")
    number = int(match[1]) if match else 0
    return number if 1 <= number <= VAL_IMAGES else None


def mislabeled(split: ImageSplit) -> list[AffectedFile]:
    """Return the validation images with an official name whose class is not that of the official image."""
    return [
        AffectedFile(item.path, f"is of class {val_labels()[number - 1]}")
        for item in split.items
        if (number := val_number(item.path)) and item.label != val_labels()[number - 1]
    ]


Found = Iterator[tuple[str, tuple[AffectedFile, ...]]]


def imagenet_deviations(split: ImageSplit) -> Found:
    """Yield the deviations from ImageNet's official split: none if and only if the split is complete."""
    return _imagenet_val(split) if split.split == "val" else _imagenet_train(split)


def _imagenet_val(split: ImageSplit) -> Found:
    numbers: Counter[int] = Counter()
    unknown, duplicates = [], []
    for item in split.items:
        number = val_number(item.path)
        if number is None or not item.path.endswith(".JPEG"):
            unknown.append(AffectedFile(item.path, "is not an official name"))
            continue
        if numbers[number]:
            duplicates.append(AffectedFile(item.path, "has the same number as another file"))
        numbers[number] += 1
    if len(numbers) < VAL_IMAGES:
        yield f"{VAL_IMAGES - len(numbers):,} of {VAL_IMAGES:,} official images are missing", ()
    yield from _named(unknown, "without an official name (such as ILSVRC2012_val_00000001.JPEG)")
    yield from _named(duplicates, "with the official name of another file")
    yield from _named(mislabeled(split), "with another class than the official image of that name")
    yield from _class_sizes(split, *VAL_IMAGES_PER_CLASS)
    yield from _total_size(split, VAL_ARCHIVE, VAL_IMAGES)


def _imagenet_train(split: ImageSplit) -> Found:
    if len(split.items) != TRAIN_IMAGES:
        yield f"{plural(len(split.items), 'image')} instead of {TRAIN_IMAGES:,}", ()
    elif split.classes < CLASSES:
        yield f"{CLASSES - split.classes} of {CLASSES:,} classes are missing", ()
    unknown = [
        AffectedFile(item.path, "is not an official name")
        for item in split.items
        if not TRAIN_NAME.fullmatch(item.path)
    ]
    yield from _named(unknown, "without an official name (such as n01440764_18.JPEG in n01440764)")
    yield from _class_sizes(split, *TRAIN_IMAGES_PER_CLASS)
    yield from _total_size(split, TRAIN_ARCHIVE, TRAIN_IMAGES)


def _total_size(split: ImageSplit, archive: Archive, images: int) -> Found:
    """Compare the total size with that of the official archive, if the number of images is official."""
    if len(split.items) == images:
        yield from _other_total(sum(item.size for item in split.items), *archive.sizes(images))


def _other_total(total: int, least: int, most: int) -> Found:
    if not least <= total <= most:
        words = (
            f"the images have {total:,} bytes in total, but the official images have {least:,} to {most:,}"
        )
        yield f"{words}: they are other files, or have been encoded again", ()


def coco_deviations(
    split: str,
    names: Mapping[int, str],
    annotations: int,
    categories: Mapping[int, str],
    size: int | None = None,
) -> Found:
    """Yield the deviations from COCO's official split: none if and only if the split is complete.

    Args:
        names: file names of the images by id.
        annotations: their number.
        categories: names of the categories by id.
        size: total size of the image files in bytes, if they are known.
    """
    if split not in COCO:
        yield f"split {split} is not an official one: {', '.join(COCO)}", ()
        return
    official = COCO[split]
    for count, expected, words in (
        (len(names), official.images, ("image", "images")),
        (annotations, official.annotations, ("annotation", "annotations")),
        (len(categories), len(coco_categories()), ("category", "categories")),
    ):
        if count != expected:
            yield f"{plural(count, *words)} instead of {expected:,}", ()
    if len(categories) == len(coco_categories()) and dict(categories) != coco_categories():
        number, name = min(categories.items() - coco_categories().items())
        yield f"other ids or names of the categories, such as {name} with id {number}", ()
    unknown = [
        AffectedFile(f"{split}2017/{name}", f"is not the official name of image {number}")
        for number, name in sorted(names.items())
        if name != f"{number:012d}.jpg"
    ]
    yield from _named(unknown, "without an official name (such as 000000000139.jpg for image 139)")
    if size is not None and len(names) == official.images:
        least, most = (round(official.archive_bytes * factor) for factor in COMPRESSION)
        yield from _other_total(size, least, most)


def _class_sizes(split: ImageSplit, least: int, most: int) -> Found:
    counts = Counter(item.path.partition("/")[0] for item in split.items)
    odd = tuple(
        AffectedFile(wnid, f"has {count:,}")
        for wnid, count in sorted(counts.items())
        if not least <= count <= most
    )
    if odd:
        right = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        yield f"{plural(len(odd), 'class', 'classes')} without {right} images", odd


def _named(about: list[AffectedFile], words: str) -> Found:
    if about:
        yield f"{plural(len(about), 'file')} {words}", tuple(about)
