"""Read COCO: ``annotations/instances_{train,val}2017.json``, ``train2017/``, ``val2017/``. Free of torch."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from stat import S_ISREG
from typing import TypedDict

from pydantic_core import from_json, to_json

from sdabench.data.annotations import AnnotationFile, Entry, read_annotations
from sdabench.data.classes import list_names
from sdabench.data.description import DatasetInfo
from sdabench.data.masks import is_empty, mask_problem
from sdabench.data.objects import (
    ObjectCounts,
    Unused,
    is_scored,
    nothing_to_score,
    reaches_out,
)
from sdabench.data.official import Found, coco_deviations
from sdabench.data.split import Split, SplitName
from sdabench.errors import DataError, NothingMeasuredError, UsageError
from sdabench.garbage import without_garbage_collection
from sdabench.hashing import sha256_of_lines


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

    id: int
    label: int  # index of the category from 0, in the order of ids
    bbox: tuple[float, float, float, float]  # (x, y, width, height) in pixels; the area can be 0
    area: float  # of the mask in pixels
    iscrowd: bool
    segmentation: Polygons | Rle | None  # (x, y, x, y, …) or an RLE; unchecked, see mask_problem


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
            Annotation(number, label, tuple(bbox), area, bool(iscrowd), segmentation)
            for label, (number, bbox, area, iscrowd, segmentation) in zip(
                self.labels, from_json(self.encoded), strict=True
            )
        )

    def why_unused(self, annotation: Annotation, masks: bool) -> Unused | None:
        """Return why one of the annotations is not trained on, as in mmdetection; None if it is.

        With ``masks``, masks are trained on too, and must have pixels.
        """
        if annotation.iscrowd:
            return "crowds"
        if annotation.area <= 0:
            return "of area 0"
        x, y, width, height = annotation.bbox
        if min(width, height) < 1:
            return "below a pixel"
        if min(x + width, self.width) <= max(x, 0) or min(y + height, self.height) <= max(y, 0):
            return "outside the image"
        without_pixels = masks and is_empty(annotation.segmentation, (self.height, self.width))
        return "with an empty mask" if without_pixels else None


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
        complete = self.complete and self.split == "train"
        return replace(self.select(items), complete=complete, subset_of=self.subset_of)

    @without_garbage_collection()
    def count_objects(self, masks: bool = False) -> ObjectCounts:
        """Count the annotations that training, with ``masks`` of masks too, and AP use."""
        counts = ObjectCounts(images=len(self.items))
        for item in self.items:
            size = (item.height, item.width)
            for one in item.annotations:
                counts.annotations += 1
                counts.crowds += one.iscrowd
                counts.scored += is_scored(one.iscrowd, one.area)
                if reaches_out(one.bbox, size):
                    counts.reaching_out.append((item.path, one.id))
                if why := item.why_unused(one, masks):
                    counts.unused[why] += 1
                else:
                    counts.used.add(one.label)
        return counts

    def check_trainable(self, masks: bool) -> str | None:
        """Check that detections, or also masks, can be trained; return what training leaves out, in one line.

        Raises:
            NothingMeasuredError: no annotation can be used.
            DataError: an object has no mask.
        """
        if masks:
            self._check_masks("trained", lambda item, one: item.why_unused(one, masks=False) is None)
        counts = self.count_objects(masks)
        if not counts.used:
            reason = counts.describe_unused() or "no annotation"
            raise NothingMeasuredError(
                f"nothing to train on: {self.annotations_file} has no usable object ({reason}); correct its "
                "annotations, or use another dataset"
            )
        left_out = "; ".join(
            filter(None, (counts.describe_unused(), self.describe_unused_categories(counts)))
        )
        return f"{self.annotations_file}: {left_out}" if left_out else None

    def describe_unused_categories(self, counts: ObjectCounts) -> str | None:
        """Name the categories without an object that training uses."""
        names = [category.name for label, category in enumerate(self.categories) if label not in counts.used]
        if not names:
            return None
        count = f"{len(names):,} of {self.num_classes:,} categories"
        return f"{count} have no usable object ({list_names(names)})"

    def check_scorable(self, masks: bool) -> None:
        """Check that detections, or also masks, can be scored.

        Raises:
            NothingMeasuredError: no annotation counts as an object.
            DataError: an annotation has no mask.
        """
        if masks:
            self._check_masks("scored", lambda item, one: True)
        counts = self.count_objects()
        if not counts.scored:
            reason = nothing_to_score(counts.images, counts.annotations, counts.crowds)
            raise NothingMeasuredError(
                f"nothing can be scored: {self.annotations_file} has {reason}; use another dataset"
            )

    def mask_problems(self) -> Iterator[tuple[CocoImage, Annotation, str]]:
        """Yield the annotations without a valid mask; see :func:`sdabench.data.masks.mask_problem`."""
        for item in self.items:
            for one in item.annotations:
                if problem := mask_problem(one.segmentation, (item.height, item.width)):
                    yield item, one, problem

    def _check_masks(self, verb: str, needed: Callable[[CocoImage, Annotation], bool]) -> None:
        for item, one, problem in self.mask_problems():
            if needed(item, one):
                raise DataError(
                    f"{self.annotations_file}: annotation {one.id} {problem}, so masks cannot be {verb}; "
                    "complete the annotations, or use a Faster R-CNN"
                )

    @cached_property
    def has_id_zero(self) -> bool:
        """Whether an annotation has id 0; see :data:`sdabench.data.annotations.ID_ZERO`."""
        return any(one.id == 0 for item in self.items for one in item.annotations)

    def deviations(self) -> Found:
        """Yield the deviations from COCO's official split; see :func:`coco_deviations`."""
        names = {item.id: item.path.removeprefix(f"{self.split}2017/") for item in self.items}
        categories = {category.id: category.name for category in self.categories}
        annotations = sum(len(item.labels) for item in self.items)
        size = sum(item.size for item in self.items)
        return coco_deviations(self.split, names, annotations, categories, size)

    def listing_lines(self, digests: Sequence[str] | None = None) -> Iterator[str]:
        yield f"{self.annotations_file.relative_to(self.root)}\t{self.annotations_sha256}"
        yield from super().listing_lines(digests)


def category_difference(first: CocoSplit, second: CocoSplit) -> str | None:
    """Describe how the categories of two splits differ; None if ids and names are the same."""
    if first.categories == second.categories:
        return None
    one, other = ({(each.id, each.name) for each in split.categories} for split in (first, second))
    only = [
        f"only {split.annotations_file.name} has "
        + list_names([f"{name} (id {number})" for number, name in sorted(own)])
        for split, own in ((first, one - other), (second, other - one))
        if own
    ]
    return f"the splits list different categories: {'; '.join(only)}"


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
    file.check_fields("images", {"file_name": "a string"})
    file.check_sizes()
    file.check_boxes()
    categories = tuple(
        Category(entry["id"], entry["name"]) for entry in sorted(file.categories, key=itemgetter("id"))
    )
    labels = {category.id: label for label, category in enumerate(categories)}
    of_image: dict[int, list[Entry]] = defaultdict(list)
    for annotation in file.annotations:
        of_image[annotation["image_id"]].append(annotation)
    items = []
    for entry in sorted(file.images, key=itemgetter("id")):
        image = _image_path(root, f"{split}2017", entry, annotations_file)
        if sizes is None or image in sizes:
            size = _size(root / image, annotations_file) if sizes is None else sizes[image]
            items.append(_coco_image(entry, image, size, of_image[entry["id"]], labels))
    found = CocoSplit(
        dataset="coco",
        split=split,
        root=root,
        items=tuple(items),
        num_classes=len(categories),
        class_names=tuple(category.name for category in categories),
        class_ids=tuple(category.id for category in categories),
        categories=categories,
        annotations_file=root / "annotations" / annotations_file.name,
        annotations_sha256=file.sha256,
    )
    return found if sizes is not None else replace(found, complete=not any(found.deviations()))


def _coco_image(
    entry: Entry, path: str, size: int, annotations: Sequence[Entry], labels: Mapping[int, int]
) -> CocoImage:
    fields = [
        [one["id"], one["bbox"], one["area"], one["iscrowd"], one.get("segmentation")] for one in annotations
    ]
    return CocoImage(
        id=entry["id"],
        path=path,
        size=size,
        height=entry["height"],
        width=entry["width"],
        labels=tuple(labels[one["category_id"]] for one in annotations),
        encoded=to_json(fields),
    )


def _image_path(root: Path, folder: str, entry: Entry, annotations_file: Path) -> str:
    """Return the path of an image relative to the root of the dataset, and refuse one that leaves it.

    Links are followed, as datasets consist of them; only names with ``..`` must resolve to a path below
    the root.
    """
    name = entry["file_name"]
    path = f"{folder}/{name}"
    controls = any(ord(character) < 32 or ord(character) == 127 for character in name)
    parts = name.split("/")
    if (
        controls
        or name.startswith("/")
        or (".." in parts and not (root / path).resolve().is_relative_to(root))
    ):
        words = "contains control characters" if controls else "leaves the dataset"
        raise DataError(
            f"{annotations_file}: the entry of 'images' with id {entry['id']} has a 'file_name' that {words}"
            f": {name[:100]!r}; name a file in {folder}/"
        )
    return path


def _size(path: Path, annotations_file: Path) -> int:
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode):
            raise DataError(
                f"{path}, which is listed in {annotations_file}, is a folder, a device or a pipe; restore "
                "the image file from the original archive"
            )
        return found.st_size
    except OSError as error:
        raise DataError(
            f"cannot read {path}, which is listed in {annotations_file}: {error.strerror}; restore it from "
            "the original archive"
        ) from None


def describe_annotations(file: AnnotationFile) -> DatasetInfo:
    """Describe an annotations file for a record of third-party results, without reading images."""
    name = re.fullmatch(r"instances_(train|val)2017", file.path.stem)
    split = name[1] if name else file.path.stem
    names = {image["id"]: image.get("file_name", "") for image in file.images}
    categories = {category["id"]: category["name"] for category in file.categories}
    folder = file.path.resolve().parent
    lines = [f"annotations/{file.path.name}\t{file.sha256}"]
    return DatasetInfo(
        name="coco",
        split=split,
        root=str(folder.parent if folder.name == "annotations" else folder),
        classes=len({annotation["category_id"] for annotation in file.annotations}),
        samples=len(file.images),
        complete=not any(coco_deviations(split, names, len(file.annotations), categories)),
        listing_sha256=sha256_of_lines(lines),
    )
