"""Interface of the splits of all datasets. Free of torch."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, Self

from sdabench.data.description import DatasetInfo

SplitName = Literal["train", "val"]


class ImageFile(Protocol):
    """An image file: path relative to the root of the split, size in bytes."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...


class Split(Protocol):
    """A list of image files.

    ``complete`` is True for the complete real dataset. ``fingerprint_sha256`` is the expected fingerprint, if
    it is known.
    """

    @property
    def dataset(self) -> str: ...

    @property
    def split(self) -> SplitName: ...

    @property
    def root(self) -> Path: ...

    @property
    def items(self) -> Sequence[ImageFile]: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def complete(self) -> bool: ...

    @property
    def fingerprint_sha256(self) -> str | None: ...

    @property
    def listing_sha256(self) -> str: ...

    def listing_lines(self) -> Iterator[str]:
        """Yield the lines of ``listing_sha256``: path and size of each file."""

    @property
    def classes(self) -> int:
        """Number of classes that occur in this split."""

    def subset(self, images: int | None) -> Self:
        """Return the first images, balanced over classes; all images for None."""

    def with_status(self, complete: bool, fingerprint_sha256: str | None) -> Self:
        """Return the same images with another ``complete`` and ``fingerprint_sha256``."""

    def describe(self, digests: Sequence[str] | None = None) -> DatasetInfo:
        """Describe the split for a record, with a fingerprint from the ``digests`` of its files in order."""


def file_lines(files: Iterable[ImageFile], digests: Sequence[str] | None = None) -> Iterator[str]:
    """Yield a line to hash for each file: path, size and optionally sha256."""
    if digests is None:
        return (f"{file.path}\t{file.size}" for file in files)
    return (f"{file.path}\t{file.size}\t{digest}" for file, digest in zip(files, digests, strict=True))


def dataset_info(split: Split, fingerprint_sha256: str | None) -> DatasetInfo:
    """Describe a split for a record."""
    return DatasetInfo(
        name=split.dataset,
        split=split.split,
        root=str(split.root),
        classes=split.classes,
        samples=len(split.items),
        complete=split.complete,
        listing_sha256=split.listing_sha256,
        fingerprint_sha256=fingerprint_sha256,
    )
