"""A few images of a split, by their ids or drawn at random; and the file that says which. Free of torch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from sdabench.data.coco import CocoImage, CocoSplit
from sdabench.data.folders import ImageSplit, Item
from sdabench.data.split import ImageFile, Split
from sdabench.errors import DataError, NothingMeasuredError, UsageError
from sdabench.files import writing


def image_ids(split: Split) -> list[str]:
    """What names an image: of COCO its number, else its path relative to the split's folder."""
    if isinstance(split, CocoSplit):
        return [str(item.id) for item in split.items]
    return [item.path for item in split.items]


def with_ids(split: Split, ids: Sequence[str]) -> Split:
    """The images of those ids, in the order of the split.

    Raises:
        NothingMeasuredError: there is no id.
        DataError: an id is not in the split.
    """
    if not ids:
        raise NothingMeasuredError("the subset is empty; it should name an image in each line")
    wanted, known = set(ids), image_ids(split)
    if unknown := wanted - set(known):
        a_name = "the number of an image" if isinstance(split, CocoSplit) else "a path like CLASS/NAME.JPEG"
        raise DataError(f"no image '{min(unknown)}' in {split.root}; an id is {a_name}")
    return _kept(split, [place for place, name in enumerate(known) if name in wanted])


def stratified(split: Split, images: int, seed: int) -> Split:
    """So many images, as many of each class as can be, drawn by the seed: not more than there are.

    An image with objects of several classes is drawn for one of them; those with none come last.
    """
    labels = [_labels(item) for item in split.items]
    drawn = np.random.default_rng(seed).permutation(len(labels)).tolist()
    queues = [[place for place in drawn if label in labels[place]] for label in sorted(set().union(*labels))]
    chosen: dict[int, None] = {}
    while len(chosen) < images and any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < images:
                chosen[queue.pop(0)] = None
    chosen |= dict.fromkeys([place for place in drawn if place not in chosen][: images - len(chosen)])
    return _kept(split, sorted(chosen))


def read_ids(path: Path) -> list[str]:
    """The ids in a file, one a line; lines that are empty or begin with # are none.

    Raises:
        UsageError: there is no such file.
        DataError: it cannot be read.
    """
    try:
        lines = path.read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        raise UsageError(f"no file of image ids at {path}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def write_ids(path: Path, ids: Iterable[str]) -> None:
    """Raises:
    OutputError: the file cannot be written.
    """
    with writing(path) as file:
        file.write("".join(f"{name}\n" for name in ids).encode(errors="surrogateescape"))


def _labels(item: ImageFile) -> set[int]:
    return set(item.labels) if isinstance(item, CocoImage) else {cast(Item, item).label}


def _kept(split: Split, places: Sequence[int]) -> Split:
    if len(places) == len(split.items):
        return split
    assert isinstance(split, ImageSplit | CocoSplit)
    items: Any = tuple(split.items[place] for place in places)
    return replace(split, items=items, complete=False, fingerprint_sha256=None)
