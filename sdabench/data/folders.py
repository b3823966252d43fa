"""List the files of image-classification datasets with one folder per class, or in one flat folder.

Free of torch.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sdabench.data.classes import ClassList
from sdabench.data.description import DatasetInfo
from sdabench.data.split import ImageFile, Split
from sdabench.errors import DataError

if TYPE_CHECKING:
    from sdabench.data.decoding import Location

# Files that may lie beside images, whose names or folders tell the classes too.
BESIDE = {"LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "README.txt", "README.md"}
EXTENSIONS = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True, slots=True)
class Item:
    """An image file: ``class/name``, relative to the folder of the split; size in bytes; class index."""

    path: str
    size: int
    label: int

    @property
    def labels(self) -> tuple[int]:
        return (self.label,)


@dataclass(frozen=True)
class ImageSplit(Split):
    """A split in the order of its paths. Missing classes do not change the labels of the others.

    An image whose name tells its class can also lie in ``root`` itself. Its path still names the class, so
    that listing and fingerprint do not depend on the layout. ``candidates`` are the labels among which the
    best are chosen, unless these are all.
    """

    items: tuple[Item, ...]
    candidates: tuple[int, ...] | None = None

    def file(self, item: ImageFile) -> "Location":
        path = self.root / item.path
        flat = self.root / path.name
        return flat if not path.exists() and flat.exists() else path

    @property
    def occurring(self) -> tuple[str, ...]:
        """Names of the classes that occur, in the order of their labels."""
        return tuple(self.class_names[label] for label in sorted({item.label for item in self.items}))

    def with_classes(self, names: Sequence[str]) -> Self:
        """Return the same images with labels in another list of classes, by name.

        Raises:
            DataError: the list lacks a class that occurs.
        """
        positions = ClassList(names=tuple(names)).positions_of(self.occurring)
        if positions is None:
            raise DataError(
                f"the class folders in {self.root} have changed since the run started; run it again"
            )
        items = tuple(replace(each, label=positions[self.class_names[each.label]]) for each in self.items)
        index = {name: label for label, name in enumerate(names)}
        known = [index.get(self.class_names[label]) for label in self.candidates or ()]
        return replace(
            self,
            items=items,
            class_names=tuple(names),
            num_classes=len(names),
            own_classes=True,
            candidates=tuple(label for label in known if label is not None) or None,
        )

    def describe(self, digests: Sequence[str] | None = None) -> DatasetInfo:
        info = super().describe(digests)
        some = self.classes != self.num_classes
        return info.model_copy(
            update={
                "num_classes": self.num_classes if some else None,
                "candidates": self.candidates and len(self.candidates),
            }
        )

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
    root: Path,
    labels: Mapping[str, int],
    a_class: str,
    sizes: Mapping[str, int] | None = None,
    class_of: Callable[[str], str | None] = lambda name: None,
) -> tuple[Item, ...]:
    """List the images of ``root/<class>/`` in the order of their paths.

    Args:
        labels: class index of each allowed folder name, which ``a_class`` describes in error messages.
        sizes: known sizes in bytes by path; then no folder is read.
        class_of: the class of an image outside of class folders from its name; None if it is unknown.

    Raises:
        DataError: there are no images, or other files or folders.
    """
    if sizes is not None:
        return tuple(_listed_item(root, path, size, labels, a_class) for path, size in sizes.items())
    items: dict[str, Item] = {}
    try:
        for entry in _visible(root):
            if entry.name in BESIDE:
                continue
            inside = entry.is_dir()
            for file in _visible(entry.path) if inside else [entry]:
                name = entry.name if inside else class_of(entry.name)
                if name is None:
                    raise _outside_of_classes(entry, root, a_class)
                item = _item(file, name, labels, a_class)
                if item.path in items:
                    raise DataError(f"{file.path} is in {root} and in its class folder; delete one of them")
                items[item.path] = item
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}; check its permissions") from None
    if not items:
        raise DataError(f"{root} has no images; it must contain <class>/*.JPEG, where <class> is {a_class}")
    return tuple(items[path] for path in sorted(items))


def _listed_item(root: Path, path: str, size: int, labels: Mapping[str, int], a_class: str) -> Item:
    name = path.partition("/")[0]
    if name not in labels:
        raise _unknown_class(root / name, a_class)
    return Item(path, size, labels[name])


def _item(file: os.DirEntry[str], name: str, labels: Mapping[str, int], a_class: str) -> Item:
    """Return the item of an image file of a class."""
    if name not in labels:
        raise _unknown_class(Path(file.path).parent, a_class)
    if Path(file.name).suffix.lower() not in EXTENSIONS:
        raise DataError(
            f"{file.path} is not an image file ({', '.join(EXTENSIONS)}); move it out of the dataset"
        )
    if not file.is_file():
        raise DataError(
            f"{file.path} is not an image file, but a folder, a device or a broken link; move it out of the "
            "dataset"
        )
    return Item(f"{name}/{file.name}", file.stat().st_size, labels[name])


def _unknown_class(folder: Path, a_class: str) -> DataError:
    return DataError(f"class folder {folder} is not {a_class}")


def _outside_of_classes(entry: os.DirEntry[str], root: Path, a_class: str) -> DataError:
    if Path(entry.name).suffix.lower() in EXTENSIONS:
        return DataError(
            f"{root} has images outside class folders ({entry.name}), whose names do not tell their class; "
            f"move them to one folder per class, named by {a_class}"
        )
    return DataError(f"{entry.path} is neither a class folder nor an image; move it out of the dataset")


def _visible(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
