"""Select images of a split by id or at random, and store their ids. Free of torch."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sdabench.data.coco import CocoSplit
from sdabench.data.folders import ImageSplit
from sdabench.data.split import Split
from sdabench.errors import DataError, NothingMeasuredError, UsageError
from sdabench.files import atomic_write


def image_ids(split: Split) -> list[str]:
    """Return the ids of the images: numbers for COCO, otherwise paths relative to the split."""
    if isinstance(split, CocoSplit):
        return [str(item.id) for item in split.items]
    return [item.path for item in split.items]


def with_ids(split: Split, ids: Sequence[str]) -> Split:
    """Select images by id, in the order of the split.

    Raises:
        NothingMeasuredError: there are no ids.
        DataError: an id is not in the split.
    """
    if not ids:
        raise NothingMeasuredError("the subset is empty; it needs one image id per line")
    wanted, known = set(ids), image_ids(split)
    if unknown := wanted - set(known):
        a_name = "the number of an image" if isinstance(split, CocoSplit) else "a path like CLASS/NAME.JPEG"
        raise DataError(f"no image '{min(unknown)}' in {split.root}; an id is {a_name}")
    return _selected(split, [index for index, name in enumerate(known) if name in wanted])


def stratified(split: Split, images: int, seed: int) -> Split:
    """Draw images with a seed, with equal numbers per class as far as possible.

    An image with several classes is drawn for one of them; images without classes come last.
    """
    labels = [item.labels for item in split.items]
    drawn = np.random.default_rng(seed).permutation(len(labels)).tolist()
    queues = [[index for index in drawn if label in labels[index]] for label in sorted(set().union(*labels))]
    chosen: dict[int, None] = {}
    while len(chosen) < images and any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < images:
                chosen[queue.pop(0)] = None
    chosen |= dict.fromkeys([index for index in drawn if index not in chosen][: images - len(chosen)])
    return _selected(split, sorted(chosen))


def divided(split: ImageSplit, share: float, seed: int) -> tuple[ImageSplit, ImageSplit]:
    """Divide images with a seed: the second part gets a share of each class, at least one image.

    Raises:
        DataError: a class has only one image.
    """
    of_class = defaultdict[int, list[int]](list)
    for index in np.random.default_rng(seed).permutation(len(split.items)).tolist():
        of_class[split.items[index].label].append(index)
    chosen = set[int]()
    for label, own in of_class.items():
        if len(own) == 1:
            raise DataError(f"class {split.class_names[label]} has only one image; add one, or remove it")
        chosen |= set(own[: min(max(1, round(share * len(own))), len(own) - 1)])
    parts = [
        [item for n, item in enumerate(split.items) if (n in chosen) is inside] for inside in (False, True)
    ]
    return split.select(parts[0]), split.select(parts[1])


def read_ids(path: Path) -> list[str]:
    """Read ids from a file with one id per line; empty lines and lines that start with # are ignored.

    Raises:
        UsageError: there is no such file.
        DataError: the file cannot be read.
    """
    try:
        lines = path.read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        raise UsageError(f"no file of image ids at {path}; it needs one id per line") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; name another file of ids") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def write_ids(path: Path, ids: Iterable[str]) -> None:
    """Write one id per line.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write("".join(f"{name}\n" for name in ids).encode(errors="surrogateescape"))


def _selected(split: Split, indices: Sequence[int]) -> Split:
    if len(indices) == len(split.items):
        return split
    return split.select([split.items[index] for index in indices])
