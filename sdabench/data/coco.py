"""Read COCO: ``annotations/instances_{train,val}2017.json``, ``train2017/``, ``val2017/``. Free of torch."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, TypedDict

from pydantic_core import from_json, to_json

from sdabench.data.annotations import AnnotationFile, Entry, read_annotations
from sdabench.data.description import DatasetInfo
from sdabench.data.split import Split, SplitName
from sdabench.errors import DataError, NothingMeasuredError, UsageError
from sdabench.hashing import sha256_of_lines

# Numbers of images, annotations and categories.
OFFICIAL = {"train": (118_287, 860_001, 80), "val": (5_000, 36_781, 80)}


class Rle(TypedDict):
    """A mask as run lengths in column order, starting with zeros."""

    size: list[int]  # height, width
    counts: list[int] | str  # a string if compressed


Polygons = list[list[float]]


@dataclass(frozen=True)
class Category:
    """A category with its original id: COCO's 80 categories have ids from 1 to 90."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object, or a crowd of objects."""

    label: int  # index of the category from 0, in the order of ids
    bbox: tuple[float, float, float, float]  # (x, y, width, height) in pixels; the area can be 0
    area: float  # of the mask in pixels
    iscrowd: bool
    segmentation: Polygons | Rle  # (x, y, x, y, …) or an RLE; empty if only boxes are annotated


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image file: path relative to the root of the dataset, size in bytes, height and width in pixels.

    ``labels`` has one entry per annotation. The other fields of annotations are ``encoded`` as JSON, because
    data loader workers would copy many small objects.
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
        """Annotations in the order of the file, decoded at each access."""
        return tuple(
            Annotation(label, tuple(bbox), area, bool(iscrowd), segmentation)
            for label, (bbox, area, iscrowd, segmentation) in zip(
                self.labels, from_json(self.encoded), strict=True
            )
        )


@dataclass(frozen=True, kw_only=True)
class CocoSplit(Split):
    """Images with annotations in the order of their ids.

    Listing and fingerprint include the annotations file.
    """

    items: tuple[CocoImage, ...]
    categories: tuple[Category, ...]
    annotations_file: Path
    annotations_sha256: str

    def with_annotations(self) -> "CocoSplit":
        """Return the split without images that have no annotation, for training; crowds are annotations.

        A training split stays complete. A validation split does not, because detections in empty images
        count for AP.
        """
        items = tuple(item for item in self.items if item.labels)
        if len(items) == len(self.items):
            return self
        return replace(self.select(items), complete=self.complete and self.split == "train")

    def check(self, masks: bool) -> None:
        """Check that detections, or also masks, can be scored.

        Raises:
            NothingMeasuredError: no object is annotated.
            DataError: an object has no mask.
        """
        if not any(item.labels for item in self.items):
            raise NothingMeasuredError(
                f"no object is annotated in {len(self.items)} images of {self.root}; use another dataset"
            )
        for item in self.items if masks else ():
            if not all(has_mask(one.segmentation) for one in item.annotations):
                raise DataError(
                    f"an object in {item.path} has a box but no mask of at least three points; complete the "
                    "annotations, or use a Faster R-CNN"
                )

    def listing_lines(self, digests: Sequence[str] | None = None) -> Iterator[str]:
        yield f"{self.annotations_file.relative_to(self.root)}\t{self.annotations_sha256}"
        yield from super().listing_lines(digests)


def has_mask(segmentation: Any) -> bool:
    """Return whether a segmentation is an RLE, or polygons of at least three points."""
    return bool(segmentation) and (
        isinstance(segmentation, dict) or min(len(polygon) for polygon in segmentation) >= 6
    )


def read_coco(path: Path, split: SplitName, sizes: Mapping[str, int] | None = None) -> CocoSplit:
    """Read ``path/annotations/instances_<split>2017.json``, and list its images in ``path/<split>2017``.

    Args:
        sizes: known sizes in bytes of the images to use, by path; then the folder is not read.

    Raises:
        UsageError: there is no such folder or file.
        DataError: the annotations file is invalid, or an image is missing.
    """
    annotations_file = path / "annotations" / f"instances_{split}2017.json"
    for needed, exists in ((path, path.is_dir()), (annotations_file, annotations_file.is_file())):
        if not exists:
            raise UsageError(
                f"no dataset at {needed}; a COCO folder needs annotations/{annotations_file.name} and "
                f"{split}2017/*.jpg"
            )
    folder = (path / f"{split}2017").resolve().name
    if split == "val" and folder.startswith("train"):
        raise DataError(f"{path / 'val2017'} is a link to {folder}; it must have the validation images")
    file, root = read_annotations(annotations_file), path.resolve()
    categories = tuple(
        Category(entry["id"], entry["name"]) for entry in sorted(file.categories, key=itemgetter("id"))
    )
    labels = {category.id: label for label, category in enumerate(categories)}
    of_image: dict[int, list[Entry]] = defaultdict(list)
    for annotation in file.annotations:
        of_image[annotation["image_id"]].append(annotation)
    items = []
    for entry in sorted(file.images, key=itemgetter("id")):
        image = f"{split}2017/{entry['file_name']}"
        if sizes is None or image in sizes:
            size = _size(root / image, annotations_file) if sizes is None else sizes[image]
            items.append(_coco_image(entry, image, size, of_image[entry["id"]], labels))
    return CocoSplit(
        dataset="coco",
        split=split,
        root=root,
        items=tuple(items),
        num_classes=len(categories),
        categories=categories,
        annotations_file=root / "annotations" / annotations_file.name,
        annotations_sha256=file.sha256,
        complete=is_complete(file, split),
    )


def _coco_image(
    entry: Entry, path: str, size: int, annotations: Sequence[Entry], labels: Mapping[int, int]
) -> CocoImage:
    fields = [[one["bbox"], one["area"], one["iscrowd"], one.get("segmentation", [])] for one in annotations]
    return CocoImage(
        id=entry["id"],
        path=path,
        size=size,
        height=entry["height"],
        width=entry["width"],
        labels=tuple(labels[one["category_id"]] for one in annotations),
        encoded=to_json(fields),
    )


def _size(path: Path, annotations_file: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(
            f"cannot read {path}, which is listed in {annotations_file}: {error.strerror}; restore it from "
            "the original archive"
        ) from None


def is_complete(file: AnnotationFile, split: str) -> bool:
    """Return whether the numbers of images, annotations and categories are the official ones."""
    return OFFICIAL.get(split) == (len(file.images), len(file.annotations), len(file.categories))


def describe_annotations(file: AnnotationFile) -> DatasetInfo:
    """Describe an annotations file for a record of third-party results, without reading images."""
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
