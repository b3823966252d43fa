"""Base class of the splits of all datasets. Free of torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from sdabench.data.description import DatasetInfo
from sdabench.hashing import sha256_of_lines

if TYPE_CHECKING:
    from sdabench.data.decoding import Location

SplitName = Literal["train", "val"]


class ImageFile(Protocol):
    """An image file: path relative to the root of the split, size in bytes, class indices of its objects."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def labels(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Split:
    """A list of image files.

    ``complete`` is True for the complete real dataset. ``fingerprint_sha256`` is the expected fingerprint, if
    it is known. ``subset_of`` is the number of images from which these were selected, if any were left out.
    ``class_names`` are in the order of labels; ``class_ids`` are a detection dataset's own. ``own_classes``
    states that the files or weights determine the class names, and not the kind of dataset. ``layout``
    describes in words what the files were taken for, unless they have the usual layout.
    """

    dataset: str
    split: SplitName
    root: Path
    items: Sequence[ImageFile]
    num_classes: int
    complete: bool = False
    fingerprint_sha256: str | None = None
    subset_of: int | None = None
    class_names: tuple[str, ...] = ()
    class_ids: tuple[int, ...] | None = None
    own_classes: bool = False
    layout: str | None = None

    def file(self, item: ImageFile) -> "Location":
        """Return the path of an image file, or its place in another file."""
        return self.root / item.path

    def subset(self, images: int | None) -> Self:
        """Return the first images; all images for None."""
        if images is None or images >= len(self.items):
            return self
        return self.select(self.items[:images])

    def select(self, items: Sequence[Any]) -> Self:
        """Return a part of the images."""
        whole = self.subset_of or len(self.items)
        return replace(self, items=tuple(items), complete=False, fingerprint_sha256=None, subset_of=whole)

    @cached_property
    def classes(self) -> int:
        """Number of classes that occur in this split."""
        return len({label for item in self.items for label in item.labels})

    @cached_property
    def listing_sha256(self) -> str:
        return sha256_of_lines(self.listing_lines())

    def listing_lines(self, digests: Sequence[str] | None = None) -> Iterator[str]:
        """Yield path and size of each file, and optionally its digest: the lines of ``listing_sha256``."""
        lines = (f"{item.path}\t{item.size}" for item in self.items)
        if digests is None:
            return lines
        return (f"{line}\t{digest}" for line, digest in zip(lines, digests, strict=True))

    def describe(self, digests: Sequence[str] | None = None) -> DatasetInfo:
        """Describe the split for a record, with a fingerprint from the ``digests`` of its images in order."""
        return DatasetInfo(
            name=self.dataset,
            split=self.split,
            root=str(self.root),
            classes=self.classes,
            samples=len(self.items),
            complete=self.complete,
            listing_sha256=self.listing_sha256,
            fingerprint_sha256=None if digests is None else sha256_of_lines(self.listing_lines(digests)),
            subset_of=self.subset_of,
            layout=self.layout,
            classes_sha256=sha256_of_lines(self.class_names) if self.own_classes else None,
        )
