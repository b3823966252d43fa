"""What every split of a dataset offers, whatever its task, and how a record describes it. Free of torch."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, Self

from sdabench.data.description import DatasetInfo

SplitName = Literal["train", "val"]


class ImageFile(Protocol):
    """One image file: path relative to the split's root, size in bytes."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...


class Split(Protocol):
    """A listing of images. ``complete`` means the real dataset, whole.

    ``fingerprint_sha256`` is what :meth:`describe` has to find, where that is known.
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
        """The lines that ``listing_sha256`` is the digest of: a path and its size each."""

    @property
    def classes(self) -> int:
        """How many classes occur here."""

    def subset(self, images: int | None) -> Self:
        """Only so many images; all of them for None."""

    def with_claims(self, complete: bool, fingerprint_sha256: str | None) -> Self:
        """The same images, known to be complete or not, and to have that fingerprint."""

    def describe(self, digests: Sequence[str] | None = None) -> DatasetInfo:
        """For a record; ``digests`` are the sha256 of the image files, in order."""


def file_lines(files: Iterable[ImageFile], digests: Sequence[str] | None = None) -> Iterator[str]:
    """A line for each file, to be hashed: its path and size, and its sha256 where that is given."""
    if digests is None:
        return (f"{file.path}\t{file.size}" for file in files)
    return (f"{file.path}\t{file.size}\t{digest}" for file, digest in zip(files, digests, strict=True))


def dataset_info(split: Split, fingerprint_sha256: str | None) -> DatasetInfo:
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
