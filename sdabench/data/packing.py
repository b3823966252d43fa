"""Write a dataset as shards of the webdataset format, in a random order that is the same on every machine."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from sdabench.data.decoding import Unusable, read_file
from sdabench.data.folders import ImageSplit
from sdabench.data.shards import NAMES_FILE, missing_library
from sdabench.data.split import SplitName
from sdabench.errors import DataError
from sdabench.files import atomic_folder, write_errors


def write_shards(
    splits: Mapping[SplitName, ImageSplit],
    folder: Path,
    images: int,
    seed: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> int:
    """Write the images of splits to ``folder/SPLIT-NNNNNN.tar``, and the names of classes; return the shards.

    Images are copied byte by byte. Their order is random, so that each shard has images of many classes. The
    folder appears at the end: a part of the shards would look like a complete, smaller dataset.

    Args:
        images: images per shard; the shards of a split have equal sizes, up to one image.

    Raises:
        UsageError: the folder is not empty, or the library is missing.
        DataError: an image cannot be read, or the names of classes cannot be lines of a file.
        OutputError: the folder cannot be written.
    """
    names = next(iter(splits.values())).class_names
    if any(split.class_names != names for split in splits.values()):
        raise DataError("the splits have different classes; write shards of each split separately")
    if bad := next((name for name in names if name != " ".join(name.split()) or not name), None):
        raise DataError(f"the class {bad!r} cannot be a line of {NAMES_FILE}; rename it")
    count = 0
    with write_errors(folder, "name another folder"), atomic_folder(folder) as temporary:
        for name, split in splits.items():
            order = np.random.default_rng(seed).permutation(len(split.items))
            parts = np.array_split(order, -(-len(order) // images))
            for number, part in enumerate(parts):
                path = temporary / f"{name}-{number:06d}.tar"
                _write_shard(path, split, [int(index) for index in part], advance)
            count += len(parts)
        text = "".join(f"{name}\n" for name in names)
        (temporary / NAMES_FILE).write_text(text, encoding="utf-8", newline="\n")
    return count


def _write_shard(path: Path, split: ImageSplit, indices: list[int], advance: Callable[[int], None]) -> None:
    try:
        from webdataset import TarWriter
    except ImportError:
        raise missing_library() from None
    with path.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as shard:
        for index in indices:
            item = split.items[index]
            source = split.file(item)
            content = read_file(source)
            if isinstance(content, Unusable):
                raise DataError(f"{source} {content}")
            extension = PurePosixPath(item.path).suffix[1:].lower()
            shard.write({"__key__": f"{index:09d}", extension: content, "cls": str(item.label).encode()})
            advance(1)
