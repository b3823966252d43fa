"""ImageNet's validation tree: folders named by wnid, their images, and the 1000 class indices.

Free of torch: the images themselves are read in :mod:`sdabench.data.images`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from sdabench.data.description import DatasetInfo
from sdabench.errors import DataError, UsageError
from sdabench.hashing import sha256_of_lines

EXTENSIONS = (".jpeg", ".jpg", ".png")
VAL_IMAGES = 50_000
IMAGES_PER_CLASS = 50


@cache
def class_indices() -> dict[str, int]:
    """The index, 0 to 999, of each of the 1000 wnids."""
    text = files("sdabench.data").joinpath("imagenet_wnids.tsv").read_text()
    return {line.split("\t")[0]: index for index, line in enumerate(text.splitlines())}


@dataclass(frozen=True)
class Item:
    """One image file: path relative to the split's folder, size in bytes, class index."""

    path: str
    size: int
    label: int


@dataclass(frozen=True)
class ImageNetSplit:
    """The listing of one split. Folders for only some of the 1000 classes are fine; labels stay theirs."""

    root: Path
    items: tuple[Item, ...]

    @property
    def complete(self) -> bool:
        """Whether this is the official validation set: 1000 classes, 50 images each, official names."""
        numbers = [re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", Path(item.path).name) for item in self.items]
        per_class = [0] * len(class_indices())
        for item in self.items:
            per_class[item.label] += 1
        return all(count == IMAGES_PER_CLASS for count in per_class) and {
            int(match[1]) for match in numbers if match
        } == set(range(1, VAL_IMAGES + 1))

    def describe(self, digests: Sequence[str] | None = None) -> DatasetInfo:
        """For a record; ``digests`` are the sha256 of the files, in order."""
        fingerprint = None
        if digests is not None:
            fingerprint = sha256_of_lines(
                f"{item.path}\t{item.size}\t{digest}"
                for item, digest in zip(self.items, digests, strict=True)
            )
        return DatasetInfo(
            name="imagenet",
            split="val",
            root=str(self.root),
            classes=len({item.label for item in self.items}),
            samples=len(self.items),
            complete=self.complete,
            listing_sha256=sha256_of_lines(f"{item.path}\t{item.size}" for item in self.items),
            fingerprint_sha256=fingerprint,
        )


def read_split(path: Path) -> ImageNetSplit:
    """The validation images at ``path``, or in its folder ``val``, in the order of their paths.

    Raises:
        UsageError: there is no such folder.
        DataError: it is empty, or holds what is neither a wnid's folder nor an image.
    """
    try:
        if not path.is_dir():
            raise UsageError(
                f"no dataset folder at {path}; --data imagenet=PATH names the folder of val/<wnid>/*.JPEG"
            )
        root = path / "val" if (path / "val").is_dir() else path
        items = [item for folder in _visible(root) for item in _class_items(folder, root)]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    if not items:
        raise DataError(f"{root} holds no images; it should hold <wnid>/*.JPEG")
    return ImageNetSplit(root.resolve(), tuple(items))


def _class_items(folder: Path, root: Path) -> Iterator[Item]:
    if not folder.is_dir():
        if folder.suffix.lower() in EXTENSIONS:
            raise DataError(
                f"{root} holds images that are not in class folders ({folder.name}); sort them into one "
                "folder for each wnid, as the dataset's development kit says"
            )
        raise DataError(f"{folder} is no class folder; {root} should hold only <wnid>/*.JPEG")
    label = class_indices().get(folder.name)
    if label is None:
        raise DataError(f"class folder {folder} is not one of ImageNet's 1000 wnids (such as n01440764)")
    for file in _visible(folder):
        if not file.is_file() or file.suffix.lower() not in EXTENSIONS:
            raise DataError(f"{file} is no image file ({', '.join(EXTENSIONS)}); move it out of the dataset")
        yield Item(file.relative_to(root).as_posix(), file.stat().st_size, label)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
