"""List the files of image-classification datasets with one folder per class. Free of torch."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sdabench.data.split import Split
from sdabench.errors import DataError

EXTENSIONS = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True, slots=True)
class Item:
    """An image file: path relative to the folder of the split, size in bytes, class index."""

    path: str
    size: int
    label: int

    @property
    def labels(self) -> tuple[int]:
        return (self.label,)


@dataclass(frozen=True)
class ImageSplit(Split):
    """A split in the order of its paths. Missing classes do not change the labels of the others."""

    items: tuple[Item, ...]

    def subset(self, images: int | None) -> Self:
        """Return a number of images: the first of each class, then the second of each, and so on."""
        if images is None or images >= len(self.items):
            return self
        of_class: dict[int, list[Item]] = defaultdict(list)
        for item in self.items:
            of_class[item.label].append(item)
        ranked = [(rank, item) for group in of_class.values() for rank, item in enumerate(group)]
        chosen = sorted(ranked, key=lambda pair: pair[0])[:images]
        return self.select(sorted((item for _, item in chosen), key=lambda item: item.path))


def list_images(
    root: Path, labels: Mapping[str, int], a_class: str, sizes: Mapping[str, int] | None = None
) -> tuple[Item, ...]:
    """List the images of ``root/<class>/`` in the order of their paths.

    Args:
        labels: class index of each allowed folder name, which ``a_class`` describes in error messages.
        sizes: known sizes in bytes by path; then no folder is read.

    Raises:
        DataError: there are no images, or other files or folders.
    """
    if sizes is not None:
        return tuple(_listed_item(root, path, size, labels, a_class) for path, size in sizes.items())
    try:
        items = tuple(
            item for folder in _visible(root) for item in _class_items(folder, root, labels, a_class)
        )
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}; check its permissions") from None
    if not items:
        raise DataError(f"{root} has no images; it must contain <class>/*.JPEG, where <class> is {a_class}")
    return items


def _listed_item(root: Path, path: str, size: int, labels: Mapping[str, int], a_class: str) -> Item:
    name = path.partition("/")[0]
    if name not in labels:
        raise DataError(f"class folder {root / name} is not {a_class}")
    return Item(path, size, labels[name])


def _class_items(
    folder: os.DirEntry[str], root: Path, labels: Mapping[str, int], a_class: str
) -> Iterator[Item]:
    if not folder.is_dir():
        if Path(folder.name).suffix.lower() in EXTENSIONS:
            raise DataError(
                f"{root} has images outside of class folders ({folder.name}); move them to one folder per "
                f"class, named by {a_class}"
            )
        raise DataError(f"{folder.path} is not a class folder; {root} must contain <class>/*.JPEG only")
    if folder.name not in labels:
        raise DataError(f"class folder {folder.path} is not {a_class}")
    for file in _visible(folder.path):
        if not file.is_file() or Path(file.name).suffix.lower() not in EXTENSIONS:
            raise DataError(
                f"{file.path} is not an image file ({', '.join(EXTENSIONS)}); move it out of the dataset"
            )
        yield Item(f"{folder.name}/{file.name}", file.stat().st_size, labels[folder.name])


def _visible(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
