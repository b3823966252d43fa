"""What sets a split apart from the official one: names and numbers, in words. Free of torch."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sdabench.data.coco import OFFICIAL, CocoSplit
from sdabench.data.folders import ImageSplit
from sdabench.data.imagenet import TRAIN_IMAGES, VAL_IMAGES, VAL_IMAGES_PER_CLASS
from sdabench.data.split import Split

TRAIN_IMAGES_PER_CLASS = (732, 1300)  # of the smallest class, and of the largest
VAL_NAME = re.compile(r"n\d{8}/ILSVRC2012_val_(\d{8})\.JPEG", re.ASCII)
TRAIN_NAME = re.compile(r"(n\d{8})/\1_\d+\.JPEG", re.ASCII)

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class AffectedFile:
    """A file, or a class folder, and what is to be said of it."""

    path: str
    what: str


@dataclass(frozen=True)
class Issue:
    """Something that was noticed: ``kind`` is for programs, ``words`` are for people.

    ``about`` has everything that it concerns. An error means that the data are not what they claim.
    """

    level: Level
    kind: str
    words: str
    about: tuple[AffectedFile, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def plural(count: int, one: str, many: str | None = None) -> str:
    """The count and its noun: 1 file, 2 files."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def deviations(split: Split, level: Level = "note") -> tuple[Issue, ...]:
    """What is not as in the official split. ImageNet's classes are not checked against the images.

    Args:
        level: an error where the split is claimed to be official.
    """
    if isinstance(split, CocoSplit):
        found = _coco(split) if split.dataset == "coco" else iter(())
    elif isinstance(split, ImageSplit) and split.dataset == "imagenet":
        found = _imagenet_val(split) if split.split == "val" else _imagenet_train(split)
    else:
        found = iter(())
    remarks = tuple(Issue(level, "not official", words, about) for words, about in found)
    if split.complete or remarks:
        return remarks
    return (Issue(level, "not official", f"{split.dataset} data are generated, and no official set"),)


Found = Iterator[tuple[str, tuple[AffectedFile, ...]]]


def _imagenet_val(split: ImageSplit) -> Found:
    numbers: Counter[int] = Counter()
    unknown, twice = [], []
    for item in split.items:
        name = VAL_NAME.fullmatch(item.path)
        number = int(name[1]) if name else 0
        if not 1 <= number <= VAL_IMAGES:
            unknown.append(AffectedFile(item.path, "is no official name"))
        elif numbers[number]:
            twice.append(AffectedFile(item.path, "is there twice"))
        numbers[number] += 1
    del numbers[0]
    official = sum(1 <= number <= VAL_IMAGES for number in numbers)
    if official < VAL_IMAGES:
        yield f"{VAL_IMAGES - official:,} of {VAL_IMAGES:,} official images are missing", ()
    yield from _named(unknown, "without an official name (such as ILSVRC2012_val_00000001.JPEG)")
    yield from _named(twice, "with an official name that another file has too")
    yield from _class_sizes(split, VAL_IMAGES_PER_CLASS, VAL_IMAGES_PER_CLASS)


def _imagenet_train(split: ImageSplit) -> Found:
    if len(split.items) != TRAIN_IMAGES:
        yield f"{plural(len(split.items), 'image')}, and not {TRAIN_IMAGES:,}", ()
    unknown = [
        AffectedFile(item.path, "is no official name")
        for item in split.items
        if not TRAIN_NAME.fullmatch(item.path)
    ]
    yield from _named(unknown, "without an official name (such as n01440764_18.JPEG in n01440764)")
    yield from _class_sizes(split, *TRAIN_IMAGES_PER_CLASS)


def _coco(split: CocoSplit) -> Found:
    annotations = sum(len(item.labels) for item in split.items)
    ours = (len(split.items), annotations, split.num_classes)
    things = (("image", "images"), ("annotation", "annotations"), ("category", "categories"))
    for have, official, words in zip(ours, OFFICIAL[split.split], things, strict=True):
        if have != official:
            yield f"{plural(have, *words)}, and not {official:,}", ()
    unknown = [
        AffectedFile(item.path, f"is no official name for image {item.id}")
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
        yield f"{plural(len(odd), 'class', 'classes')} of another size than {right} images", odd


def _named(about: list[AffectedFile], words: str) -> Found:
    if about:
        yield f"{plural(len(about), 'file')} {words}", tuple(about)
