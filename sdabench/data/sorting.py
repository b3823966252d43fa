"""Sort the images of one flat folder, such as ImageNet's validation images, into class folders."""

import os
import shutil
from collections.abc import Callable
from filecmp import cmp
from pathlib import Path
from typing import NamedTuple

from sdabench.data.decoding import Location, Stored, Unusable
from sdabench.data.folders import ImageSplit
from sdabench.errors import DataError, OutputError, UsageError
from sdabench.files import atomic_write


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
    if folder.resolve().is_relative_to(split.root):
        raise UsageError(f"{folder} is inside of {split.root}; name another folder for the sorted images")
    counts = {"linked": 0, "copied": 0, "there": 0}
    for item in split.items:
        target = folder / item.path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            counts[_link_or_copy(split.file(item), target)] += 1
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror}; name another folder") from None
        advance(1)
    return Sorted(**counts)


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
        with atomic_write(target, "name another folder", durable=False) as file, source.open("rb") as content:
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
    with atomic_write(target, "name another folder", durable=False) as file:
        file.write(content)
    return "copied"
