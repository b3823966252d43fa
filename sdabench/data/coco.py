"""COCO's layout: ``annotations/instances_{train,val}2017.json`` beside ``train2017/`` and ``val2017/``.

Free of torch: the images themselves are read where they are needed.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

from pydantic_core import from_json, to_json

from sdabench.data.annotations import AnnotationFile, Entry, read_annotations
from sdabench.data.description import DatasetInfo
from sdabench.data.split import SplitName, dataset_info, file_lines
from sdabench.errors import DataError, NothingMeasuredError, UsageError
from sdabench.hashing import sha256_of_lines

# The real splits: images, annotations, categories.
OFFICIAL = {"train": (118_287, 860_001, 80), "val": (5_000, 36_781, 80)}


class Rle(TypedDict):
    """A mask as lengths of runs down the columns, zeros first; ``size`` is (height, width).

    ``counts`` is a list of lengths, or a string where they are compressed.
    """

    size: list[int]
    counts: list[int] | str


Polygons = list[list[float]]


@dataclass(frozen=True)
class Category:
    """``id`` is the original one: COCO's 80 categories have ids from 1 to 90."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object, or a crowd of them. ``label`` is the category's index, 0-based, in the order of ids.

    ``bbox`` is (x, y, width, height) in pixels, and may be of no area; ``area`` is the mask's. The
    segmentation is polygons (x, y, x, y, …), which may be none where only boxes are wanted, or an RLE.
    """

    label: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: bool
    segmentation: Polygons | Rle


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image file: path relative to the dataset's root, size in bytes, height and width in pixels.

    ``labels`` has one entry for each annotation. The rest of them is ``encoded``, as one piece of JSON,
    because loader processes copy what is many small objects.
    """

    id: int
    path: str
    size: int
    height: int
    width: int
    labels: tuple[int, ...]
    encoded: bytes

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """In the order of the file; decoded anew at each call."""
        return tuple(
            Annotation(label, tuple(bbox), area, bool(iscrowd), segmentation)
            for label, (bbox, area, iscrowd, segmentation) in zip(
                self.labels, from_json(self.encoded), strict=True
            )
        )


@dataclass(frozen=True)
class CocoSplit:
    """The images of one split, in the order of their ids, with what is annotated in them.

    ``complete`` means the real dataset, whole. ``fingerprint_sha256`` is what :meth:`describe` has to
    find, where that is known. Listing and fingerprint cover the annotations file too.
    """

    dataset: str
    split: SplitName
    root: Path
    items: tuple[CocoImage, ...]
    categories: tuple[Category, ...]
    annotations_file: Path
    annotations_sha256: str
    complete: bool = False
    fingerprint_sha256: str | None = None

    @property
    def num_classes(self) -> int:
        return len(self.categories)

    def subset(self, images: int | None) -> "CocoSplit":
        """Only so many images: the first."""
        if images is None or images >= len(self.items):
            return self
        return replace(self, items=self.items[:images], complete=False, fingerprint_sha256=None)

    def with_annotations(self) -> "CocoSplit":
        """Without the images that have no annotation at all, as training wants it; crowds are some.

        The whole training set stays complete by it. A validation split does not: AP counts what is
        found in empty images.
        """
        items = tuple(item for item in self.items if item.labels)
        if len(items) == len(self.items):
            return self
        complete = self.complete and self.split == "train"
        return replace(self, items=items, complete=complete, fingerprint_sha256=None)

    def check(self, masks: bool) -> None:
        """Sees that detections can be scored by it, before any are made.

        Args:
            masks: by masks too, which detectors of masks learn from as well.

        Raises:
            NothingMeasuredError: there is no object to find.
            DataError: an object has no mask where masks are wanted.
        """
        if not any(self._with_objects()):
            raise NothingMeasuredError(f"no object is annotated in {len(self.items)} images of {self.root}")
        for item in self._with_objects() if masks else ():
            if not all(has_mask(one.segmentation) for one in item.annotations):
                raise DataError(
                    f"an object in {item.path} has a box and no mask, or one of fewer than three points; "
                    "complete the annotations, or take a Faster R-CNN"
                )

    def _with_objects(self) -> Iterator[CocoImage]:
        return (item for item in self.items if item.labels)

    @cached_property
    def listing_sha256(self) -> str:
        return sha256_of_lines(self.listing_lines())

    def listing_lines(self, digests: Sequence[str] | None = None) -> Iterator[str]:
        """The annotation file with its digest, then the images; ``digests`` are those of their bytes."""
        yield f"{self.annotations_file.relative_to(self.root)}\t{self.annotations_sha256}"
        yield from file_lines(self.items, digests)

    @cached_property
    def classes(self) -> int:
        """How many categories have an annotation here."""
        return len({label for item in self.items for label in item.labels})

    def with_claims(self, complete: bool, fingerprint_sha256: str | None) -> "CocoSplit":
        """See :meth:`sdabench.data.split.Split.with_claims`."""
        return replace(self, complete=complete, fingerprint_sha256=fingerprint_sha256)

    def describe(self, digests: Sequence[str] | None = None) -> DatasetInfo:
        """For a record; ``digests`` are the sha256 of the image files, in order."""
        return dataset_info(self, None if digests is None else sha256_of_lines(self.listing_lines(digests)))


def has_mask(segmentation: Any) -> bool:
    """Whether these are polygons of three points or more, or an RLE."""
    return bool(segmentation) and (
        isinstance(segmentation, dict) or min(len(polygon) for polygon in segmentation) >= 6
    )


def read_coco(path: Path, split: SplitName, sizes: Mapping[str, int] | None = None) -> CocoSplit:
    """The images that ``path/annotations/instances_<split>2017.json`` lists, in ``path/<split>2017``.

    Args:
        sizes: the images' sizes in bytes by path, where they are known; then only these are taken, and
            no file is looked for.

    Raises:
        UsageError: there is no such folder, or no such file.
        DataError: the file is not COCO's, an entry cannot be right, or an image is missing.
    """
    annotations_file = path / "annotations" / f"instances_{split}2017.json"
    layout = f"a COCO folder holds annotations/{annotations_file.name} and {split}2017/*.jpg"
    for part, missing in ((path, not path.is_dir()), (annotations_file, not annotations_file.is_file())):
        if missing:
            raise UsageError(f"no dataset at {part}; {layout}")
    file = read_annotations(annotations_file)
    categories = tuple(
        Category(entry["id"], entry["name"])
        for entry in sorted(file.categories, key=lambda entry: entry["id"])
    )
    return CocoSplit(
        dataset="coco",
        split=split,
        root=path.resolve(),
        items=_images(path.resolve(), f"{split}2017", file, categories, sizes),
        categories=categories,
        annotations_file=path.resolve() / "annotations" / annotations_file.name,
        annotations_sha256=file.sha256,
        complete=is_complete(file, split),
    )


def _images(
    root: Path,
    folder: str,
    file: AnnotationFile,
    categories: Sequence[Category],
    sizes: Mapping[str, int] | None,
) -> tuple[CocoImage, ...]:
    labels = {category.id: label for label, category in enumerate(categories)}
    of_image: dict[int, list[Entry]] = defaultdict(list)
    for annotation in file.annotations:
        of_image[annotation["image_id"]].append(annotation)
    images = []
    for entry in sorted(file.images, key=lambda entry: entry["id"]):
        its = of_image[entry["id"]]
        path = f"{folder}/{entry['file_name']}"
        if sizes is not None and path not in sizes:
            continue
        images.append(
            CocoImage(
                id=entry["id"],
                path=path,
                size=_size(root / path, file.path) if sizes is None else sizes[path],
                height=entry["height"],
                width=entry["width"],
                labels=tuple(labels[one["category_id"]] for one in its),
                encoded=to_json(
                    [[one["bbox"], one["area"], one["iscrowd"], one.get("segmentation", [])] for one in its]
                ),
            )
        )
    return tuple(images)


def _size(path: Path, annotations_file: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{path}, which {annotations_file} lists, cannot be read: {error.strerror}; restore it from the "
            "original archive"
        ) from None


def is_complete(file: AnnotationFile, split: str) -> bool:
    """Whether these can be the official annotations of ``train`` or ``val``: by their numbers."""
    return OFFICIAL.get(split) == (len(file.images), len(file.annotations), len(file.categories))


def describe_annotations(file: AnnotationFile) -> DatasetInfo:
    """For a record of results that somebody else made: the images themselves were not seen."""
    name = re.fullmatch(r"instances_(train|val)2017", file.path.stem)
    split = name[1] if name else file.path.stem
    folder = file.path.resolve().parent
    lines = [f"annotations/{file.path.name}\t{file.sha256}"]
    return DatasetInfo(
        name="coco",
        split=split,
        root=str(folder.parent if folder.name == "annotations" else folder),
        classes=len({annotation["category_id"] for annotation in file.annotations}),
        samples=len(file.images),
        complete=is_complete(file, split),
        listing_sha256=sha256_of_lines(lines),
    )
