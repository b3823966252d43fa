"""Describe how a split differs from the official one in names and numbers. Free of torch."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sdabench.data.coco import OFFICIAL, CocoSplit
from sdabench.data.folders import ImageSplit
from sdabench.data.imagenet import TRAIN_IMAGES, VAL_IMAGES, VAL_IMAGES_PER_CLASS
from sdabench.data.split import Split

TRAIN_IMAGES_PER_CLASS = (732, 1300)  # smallest and largest class
VAL_NAME = re.compile(r"n\d{8}/ILSVRC2012_val_(\d{8})\.JPEG", re.ASCII)
TRAIN_NAME = re.compile(r"(n\d{8})/\1_\d+\.JPEG", re.ASCII)

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


def deviations(split: Split, level: Level = "note") -> tuple[Issue, ...]:
    """List the deviations from the official split, without checking labels against image contents.

    Args:
        level: level of the issues: "error" if the split is supposed to be official.
    """
    if isinstance(split, CocoSplit):
        found = _coco(split) if split.dataset == "coco" else iter(())
    elif isinstance(split, ImageSplit) and split.dataset == "imagenet":
        found = _imagenet_val(split) if split.split == "val" else _imagenet_train(split)
    else:
        found = iter(())
    issues = tuple(Issue(level, "not official", words, about) for words, about in found)
    if split.complete or issues:
        return issues
    return (Issue(level, "not official", f"{split.dataset} data are generated, not official"),)


Found = Iterator[tuple[str, tuple[AffectedFile, ...]]]


def _imagenet_val(split: ImageSplit) -> Found:
    numbers: Counter[int] = Counter()
    unknown, duplicates = [], []
    for item in split.items:
        name = VAL_NAME.fullmatch(item.path)
        number = int(name[1]) if name else 0
        if not 1 <= number <= VAL_IMAGES:
            unknown.append(AffectedFile(item.path, "is not an official name"))
        elif numbers[number]:
            duplicates.append(AffectedFile(item.path, "has the same number as another file"))
        numbers[number] += 1
    del numbers[0]
    official = sum(1 <= number <= VAL_IMAGES for number in numbers)
    if official < VAL_IMAGES:
        yield f"{VAL_IMAGES - official:,} of {VAL_IMAGES:,} official images are missing", ()
    yield from _named(unknown, "without an official name (such as ILSVRC2012_val_00000001.JPEG)")
    yield from _named(duplicates, "with the official name of another file")
    yield from _class_sizes(split, VAL_IMAGES_PER_CLASS, VAL_IMAGES_PER_CLASS)


def _imagenet_train(split: ImageSplit) -> Found:
    if len(split.items) != TRAIN_IMAGES:
        yield f"{plural(len(split.items), 'image')} instead of {TRAIN_IMAGES:,}", ()
    unknown = [
        AffectedFile(item.path, "is not an official name")
        for item in split.items
        if not TRAIN_NAME.fullmatch(item.path)
    ]
    yield from _named(unknown, "without an official name (such as n01440764_18.JPEG in n01440764)")
    yield from _class_sizes(split, *TRAIN_IMAGES_PER_CLASS)


def _coco(split: CocoSplit) -> Found:
    annotations = sum(len(item.labels) for item in split.items)
    own = (len(split.items), annotations, split.num_classes)
    things = (("image", "images"), ("annotation", "annotations"), ("category", "categories"))
    for count, official, words in zip(own, OFFICIAL[split.split], things, strict=True):
        if count != official:
            yield f"{plural(count, *words)} instead of {official:,}", ()
    unknown = [
        AffectedFile(item.path, f"is not the official name of image {item.id}")
        for item in split.items
        if item.path != f"{split.split}2017/{item.id:012d}.jpg"
    ]
    yield from _named(unknown, "without an official name (such as 000000000139.jpg for image 139)")


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
