"""Read and check COCO's annotations files. Free of torch.

Entries are checked in plain Python, without pydantic models: train2017 has 860,001 annotations.
"""

import hashlib
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from sdabench.data.masks import MAX_PIXELS, mask_problem
from sdabench.errors import DataError
from sdabench.garbage import without_garbage_collection
from sdabench.json_files import read_json

Entry = dict[str, Any]
Kind = Literal["an integer", "a number", "a string", "a list", "0 or 1"]
TYPES: Mapping[Kind, tuple[type, ...]] = {
    "an integer": (int,), "a number": (int, float), "a string": (str,), "a list": (list,), "0 or 1": (int,),
}  # fmt: skip
NEXT_STEP = "correct it, or restore the original file"
# Required fields of the entries of each list; others are checked where they are needed.
FIELDS: Mapping[str, Mapping[str, Kind]] = {
    "categories": {"id": "an integer", "name": "a string"},
    "images": {"id": "an integer"},
    "annotations": {
        "id": "an integer", "image_id": "an integer", "category_id": "an integer", "area": "a number",
        "iscrowd": "0 or 1",
    },
}  # fmt: skip
ID_ZERO = (
    "the annotation with id 0 counts as any other; pycocotools by itself takes a match with it for none, so "
    "that its AP can be lower"
)
SIZE: Mapping[str, Kind] = {"height": "an integer", "width": "an integer"}


@dataclass(frozen=True)
class AnnotationFile:
    """The content of an annotations file. Ids and sizes such as 1.0 are integers, ``iscrowd`` is 0 or 1."""

    path: Path
    sha256: str
    categories: list[Entry]
    images: list[Entry]
    annotations: list[Entry]

    @property
    def category_ids(self) -> list[int]:
        """Ids of all categories in ascending order."""
        return sorted(category["id"] for category in self.categories)

    @property
    def sizes(self) -> dict[int, tuple[int, int]]:
        """(height, width) of the images by id; see :meth:`check_sizes`."""
        return {image["id"]: (image["height"], image["width"]) for image in self.images}

    def has_id_zero(self, image_ids: Container[int]) -> bool:
        """Return whether an annotation in these images has id 0; see :data:`ID_ZERO`."""
        return any(one["id"] == 0 and one["image_id"] in image_ids for one in self.annotations)

    def check_sizes(self) -> None:
        """Check height and width of the images, which files and masks need.

        Raises:
            DataError: a size is missing or impossible.
        """
        self.check_fields("images", SIZE)
        for image in self.images:
            height, width = image["height"], image["width"]
            if min(height, width) < 1 or height * width > MAX_PIXELS:
                raise DataError(
                    f"{self.path}: the entry of 'images' with id {image['id']} has an impossible size of "
                    f"{width} x {height} pixels; {NEXT_STEP}"
                )

    def check_boxes(self) -> None:
        """Check the box of each annotation: finite numbers, no negative side; raise a DataError otherwise."""
        self.check_fields("annotations", {"bbox": "a list"})
        for annotation in self.annotations:
            if not (len(annotation["bbox"]) == 4 and _are_numbers(annotation["bbox"])):
                raise DataError(
                    f"{self.path}: annotation {annotation['id']} has a 'bbox' that is not four numbers; "
                    f"{NEXT_STEP}"
                )
            if min(annotation["bbox"][2:]) < 0:
                raise DataError(
                    f"{self.path}: annotation {annotation['id']} has a 'bbox' of negative width or height; "
                    "it must be [x, y, width, height]"
                )

    def check_masks(self, image_ids: Container[int]) -> None:
        """Check that each annotation in these images has a mask; raise a DataError otherwise."""
        self.check_sizes()
        sizes = self.sizes
        for annotation in self.annotations:
            number = annotation["image_id"]
            if number in image_ids:
                problem = mask_problem(annotation.get("segmentation"), sizes[number])
                if problem:
                    raise DataError(
                        f"{self.path}: annotation {annotation['id']} {problem}, so masks cannot be scored; "
                        "complete the annotations, or score boxes"
                    )

    def check_fields(self, name: str, fields: Mapping[str, Kind]) -> None:
        """Check fields of the entries of a list; raise a DataError that names the first invalid one."""
        _check_fields(self.path, name, getattr(self, name), fields)


@without_garbage_collection()
def read_annotations(path: Path) -> AnnotationFile:
    """Read a file of COCO's instance annotations; sizes, boxes and masks are checked where they are needed.

    Raises:
        UsageError: there is no such file.
        DataError: the file is invalid; the message names the entry.
    """
    content, data = read_json(path, "annotations")
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a COCO annotations file: it needs an object with {', '.join(FIELDS)}")
    lists = {name: _entries(path, content, name) for name in FIELDS}
    for name in ("images", "categories"):
        if not lists[name]:
            raise DataError(f"{path} has no {name}; restore the original file")
    _check_annotations(path, lists)
    return AnnotationFile(path, hashlib.sha256(data).hexdigest(), **lists)


def _entries(path: Path, content: Entry, name: str) -> list[Entry]:
    """Return one list of the file, after checking the fields and unique ids of its entries."""
    entries = content.get(name)
    if not isinstance(entries, list):
        raise DataError(f"{path} is not a COCO annotations file: it has no list '{name}'; name another file")
    for position, entry in enumerate(entries, start=1):
        if type(entry) is not dict:
            raise DataError(f"{path}: entry {position} of '{name}' is not an object; {NEXT_STEP}")
    _check_fields(path, name, entries, FIELDS[name])
    if len({entry["id"] for entry in entries}) < len(entries):
        counts = Counter(entry["id"] for entry in entries)
        duplicate = next(number for number, times in counts.items() if times > 1)
        raise DataError(f"{path}: id {duplicate} occurs twice in '{name}'; {NEXT_STEP}")
    return entries


def _check_fields(path: Path, name: str, entries: list[Entry], fields: Mapping[str, Kind]) -> None:
    for field, kind in fields.items():
        types = TYPES[kind]
        for position, entry in enumerate(entries, start=1):
            if type(entry.get(field)) not in types and not _convert(entry, field, kind):
                raise DataError(_wrong_field(path, name, position, entry, field, kind))


def _convert(entry: Entry, field: str, kind: Kind) -> bool:
    """Convert 1.0 to an integer, and a missing or boolean ``iscrowd`` to 0 or 1, if the value is one."""
    value = entry.get(field)
    if kind in ("an integer", "0 or 1") and type(value) is float and value.is_integer():
        entry[field] = int(value)
    elif kind == "0 or 1" and (value is None or type(value) is bool):
        entry[field] = int(value or 0)
    else:
        return False
    return True


def _wrong_field(path: Path, name: str, position: int, entry: Entry, field: str, kind: Kind) -> str:
    known = type(entry.get("id")) is int
    which = f"the entry of '{name}' with id {entry['id']}" if known else f"entry {position} of '{name}'"
    if field not in entry:
        return f"{path}: {which} has no '{field}'; {NEXT_STEP}"
    return f"{path}: {which} has an invalid '{field}': it must be {kind}; {NEXT_STEP}"


def _check_annotations(path: Path, lists: Mapping[str, list[Entry]]) -> None:
    images = {image["id"] for image in lists["images"]}
    categories = {category["id"] for category in lists["categories"]}
    for annotation in lists["annotations"]:
        wrong = None
        if annotation["image_id"] not in images:
            wrong = f"belongs to image {annotation['image_id']}, which is not in 'images'"
        elif annotation["category_id"] not in categories:
            wrong = f"belongs to category {annotation['category_id']}, which is not in 'categories'"
        elif not _are_numbers([annotation["area"]]):
            wrong = "has an 'area' that is not finite"
        elif annotation["iscrowd"] not in (0, 1):
            wrong = "has an 'iscrowd' that is neither 0 nor 1"
        if wrong:
            raise DataError(f"{path}: annotation {annotation['id']} {wrong}; {NEXT_STEP}")


def _are_numbers(values: list[Any]) -> bool:
    """Return whether all values are finite numbers; checking their sum is fast."""
    try:
        return isfinite(sum(values))
    except (TypeError, OverflowError):
        return False
