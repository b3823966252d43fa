"""Read and check COCO's annotations files. Free of torch.

Entries are checked in plain Python, without pydantic models: train2017 has 860,001 annotations.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from sdabench.data.rle import is_rle
from sdabench.errors import DataError
from sdabench.garbage import without_garbage_collection
from sdabench.json_files import read_json

Entry = dict[str, Any]
Kinds = tuple[type, ...]
INTEGER: Kinds = (int,)
NUMBER: Kinds = (int, float)
TEXT: Kinds = (str,)
LIST: Kinds = (list,)
NEXT_STEP = "correct it, or restore the original file"
KIND_NAMES = {INTEGER: "an integer", NUMBER: "a number", TEXT: "a string", LIST: "a list"}
# Required fields of the entries of each list. Segmentations are optional, because boxes do not need them.
FIELDS: Mapping[str, Mapping[str, Kinds]] = {
    "categories": {"id": INTEGER, "name": TEXT},
    "images": {"id": INTEGER, "file_name": TEXT, "height": INTEGER, "width": INTEGER},
    "annotations": {
        "id": INTEGER, "image_id": INTEGER, "category_id": INTEGER,
        "bbox": LIST, "area": NUMBER, "iscrowd": INTEGER,
    },
}  # fmt: skip


@dataclass(frozen=True)
class AnnotationFile:
    """The content of an annotations file."""

    path: Path
    sha256: str
    categories: list[Entry]
    images: list[Entry]
    annotations: list[Entry]


@without_garbage_collection()
def read_annotations(path: Path) -> AnnotationFile:
    """Read a file of COCO's instance annotations.

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
    fields = FIELDS[name]
    for position, entry in enumerate(entries, start=1):
        if type(entry) is not dict:
            raise DataError(f"{path}: entry {position} of '{name}' is not an object; {NEXT_STEP}")
        for field, kinds in fields.items():
            if type(entry.get(field)) not in kinds:
                raise DataError(_wrong_field(path, name, position, entry, field))
    if len({entry["id"] for entry in entries}) < len(entries):
        counts = Counter(entry["id"] for entry in entries)
        duplicate = next(number for number, times in counts.items() if times > 1)
        raise DataError(f"{path}: id {duplicate} occurs twice in '{name}'; {NEXT_STEP}")
    return entries


def _wrong_field(path: Path, name: str, position: int, entry: Entry, field: str) -> str:
    known = type(entry.get("id")) is int
    which = f"the entry of '{name}' with id {entry['id']}" if known else f"entry {position} of '{name}'"
    if field not in entry:
        return f"{path}: {which} has no '{field}'; {NEXT_STEP}"
    kind = KIND_NAMES[FIELDS[name][field]]
    return f"{path}: {which} has an invalid '{field}': it must be {kind}; {NEXT_STEP}"


def _check_annotations(path: Path, lists: Mapping[str, list[Entry]]) -> None:
    images = {image["id"]: image for image in lists["images"]}
    categories = {category["id"] for category in lists["categories"]}
    for annotation in lists["annotations"]:
        wrong = None
        if annotation["image_id"] not in images:
            wrong = f"belongs to image {annotation['image_id']}, which is not in 'images'"
        elif annotation["category_id"] not in categories:
            wrong = f"belongs to category {annotation['category_id']}, which is not in 'categories'"
        elif not (len(annotation["bbox"]) == 4 and _are_numbers(annotation["bbox"])):
            wrong = "has a 'bbox' that is not four numbers"
        elif not _are_numbers([annotation["area"]]):
            wrong = "has an 'area' that is not finite"
        elif annotation["iscrowd"] not in (0, 1):
            wrong = "has an 'iscrowd' that is neither 0 nor 1"
        elif not _is_segmentation(annotation.get("segmentation", []), images[annotation["image_id"]]):
            wrong = "has a 'segmentation' that is neither polygons nor an RLE of its image's size"
        if wrong:
            raise DataError(f"{path}: annotation {annotation['id']} {wrong}; {NEXT_STEP}")


def _is_segmentation(value: Any, image: Entry) -> bool:
    if isinstance(value, list):
        return all(
            type(polygon) is list and polygon and len(polygon) % 2 == 0 and _are_numbers(polygon)
            for polygon in value
        )
    return is_rle(value, image["height"], image["width"])


def _are_numbers(values: list[Any]) -> bool:
    """Return whether all values are finite numbers; checking their sum is fast."""
    try:
        return isfinite(sum(values))
    except (TypeError, OverflowError):
        return False
