"""Write a dataset as shards of the webdataset format, in a random order that is the same on every machine."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from sdabench.data.decoding import Unusable, read_file
from sdabench.data.folders import ImageSplit
from sdabench.data.shards import NAMES_FILE, missing_library
from sdabench.data.split import SplitName
from sdabench.errors import DataError, UsageError
from sdabench.files import atomic_write

ELSEWHERE = "name another folder"


def write_shards(
    splits: Mapping[SplitName, ImageSplit],
    folder: Path,
    images: int,
    seed: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> int:
    """Write the images of splits to ``folder/SPLIT-NNNNNN.tar``, and the names of classes; return the shards.

    Images are copied byte by byte. Their order is random, so that each shard has images of many classes.

    Args:
        images: images per shard; the shards of a split have equal sizes, up to one image.

    Raises:
        UsageError: the folder is not empty, or the library is missing.
        DataError: an image cannot be read, or the names of classes cannot be lines of a file.
        OutputError: the folder cannot be written.
    """
    if next(folder.iterdir(), None) if folder.is_dir() else folder.exists():
        raise UsageError(f"{folder} exists; name a new or empty folder")
    names = next(iter(splits.values())).class_names
    if any(split.class_names != names for split in splits.values()):
        raise DataError("the splits have different classes; pack each split of a dataset of its own")
    if bad := next((name for name in names if name != " ".join(name.split()) or not name), None):
        raise DataError(f"the class {bad!r} cannot be a line of {NAMES_FILE}; rename it")
    count = 0
    for name, split in splits.items():
        order = np.random.default_rng(seed).permutation(len(split.items))
        parts = np.array_split(order, -(-len(order) // images))
        for number, part in enumerate(parts):
            _write_shard(folder / f"{name}-{number:06d}.tar", split, [int(index) for index in part], advance)
        count += len(parts)
    with atomic_write(folder / NAMES_FILE, ELSEWHERE) as file:
        file.write("".join(f"{name}\n" for name in names).encode())
    return count


def _write_shard(path: Path, split: ImageSplit, indices: list[int], advance: Callable[[int], None]) -> None:
    try:
        from webdataset import TarWriter
    except ImportError:
        raise missing_library() from None
    with atomic_write(path, ELSEWHERE) as file, TarWriter(file, encoder=False, mtime=0) as shard:
        for index in indices:
            item = split.items[index]
            source = split.file(item)
            content = read_file(source)
            if isinstance(content, Unusable):
                raise DataError(f"{source} {content}")
            extension = PurePosixPath(item.path).suffix[1:].lower()
            shard.write({"__key__": f"{index:09d}", extension: content, "cls": str(item.label).encode()})
            advance(1)
