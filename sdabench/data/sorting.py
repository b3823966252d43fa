"""Link or copy images to class folders: those of one flat folder, or the divided images of a dataset."""

import os
import shutil
from collections.abc import Callable, Mapping
from filecmp import cmp
from pathlib import Path
from typing import NamedTuple

from sdabench.data.decoding import Location, Stored, Unusable
from sdabench.data.folders import ImageSplit
from sdabench.data.split import SplitName
from sdabench.errors import DataError, OutputError, UsageError
from sdabench.files import atomic_folder, atomic_write, write_errors

ELSEWHERE = "name another folder"


class Sorted(NamedTuple):
    """Number of images that were linked, copied, or already there."""

    linked: int = 0
    copied: int = 0
    there: int = 0


def sort_images(
    split: ImageSplit, folder: Path, advance: Callable[[int], None] = lambda images: None
) -> Sorted:
    """Link or copy the images of a split to ``folder/<class>/``; nothing is moved or replaced.

    Images are copied where hard links are impossible. Another call continues after an interruption.

    Raises:
        UsageError: ``folder`` is inside of that of the split.
        DataError: a file in ``folder`` has other content.
        OutputError: ``folder`` cannot be written.
    """
    _refuse_inside(split, folder)
    counts = {"linked": 0, "copied": 0, "there": 0}
    for item in split.items:
        target = folder / item.path
        with write_errors(target, ELSEWHERE):
            target.parent.mkdir(parents=True, exist_ok=True)
            counts[_link_or_copy(split.file(item), target)] += 1
        advance(1)
    return Sorted(**counts)


def divide_images(
    parts: Mapping[SplitName, ImageSplit], folder: Path, advance: Callable[[int], None] = lambda images: None
) -> None:
    """Link or copy the images of splits to ``folder/<split>/<class>/``.

    The folder appears at the end: a part of the images would look like a complete, smaller dataset.

    Raises:
        UsageError: the folder is not empty, or inside of that of the images.
        DataError: an image cannot be read.
        OutputError: the folder cannot be written.
    """
    for part in parts.values():
        _refuse_inside(part, folder)
    with write_errors(folder, ELSEWHERE), atomic_folder(folder) as temporary:
        try:
            for name, part in parts.items():
                sort_images(part, temporary / name, advance)
        except OutputError as error:  # about a file that will be gone
            raise OutputError(str(error).replace(str(temporary), str(folder))) from None


def _refuse_inside(split: ImageSplit, folder: Path) -> None:
    if folder.resolve().is_relative_to(split.root):
        raise UsageError(f"{folder} is inside of {split.root}; name another folder for the images")


def _link_or_copy(source: Location, target: Path) -> str:
    if isinstance(source, Stored):
        return _write(source, target)
    source = source.resolve()
    try:
        os.link(source, target)
        return "linked"
    except FileExistsError:
        if target.samefile(source) or cmp(source, target, shallow=False):
            return "there"
        raise DataError(f"{target} exists and differs from {source}; delete one of them") from None
    except OSError:  # another file system, or one without hard links
        with atomic_write(target, ELSEWHERE, durable=False) as file, source.open("rb") as content:
            shutil.copyfileobj(content, file)
        return "copied"


def _write(source: Stored, target: Path) -> str:
    """Write an image that is stored in another file."""
    content = source.read()
    if isinstance(content, Unusable):
        raise DataError(f"{source} {content}")
    if target.exists():
        if target.read_bytes() == content:
            return "there"
        raise DataError(f"{target} exists and differs from {source}; delete one of them")
    with atomic_write(target, ELSEWHERE, durable=False) as file:
        file.write(content)
    return "copied"
