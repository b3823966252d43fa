"""COCO's annotation file, read as plain JSON and checked as a whole. Free of torch.

An entry is checked field by field, without a model of it: train2017 has 860,001 annotations.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from sdabench.data.rle import is_rle
from sdabench.errors import DataError
from sdabench.files import read_unpacked
from sdabench.garbage import without_garbage_collection

Entry = dict[str, Any]
Kinds = tuple[type, ...]
INTEGER: Kinds = (int,)
NUMBER: Kinds = (int, float)
TEXT: Kinds = (str,)
LIST: Kinds = (list,)
WORDS = {INTEGER: "an integer", NUMBER: "a number", TEXT: "a string", LIST: "a list"}
# What an entry of each list has to have. A file for detection alone may do without segmentations.
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
    """The entries as they stand in the file."""

    path: Path
    sha256: str
    categories: list[Entry]
    images: list[Entry]
    annotations: list[Entry]


def read_json(path: Path, what: str) -> tuple[Any, bytes]:
    """What a JSON file holds, compressed by gzip or not, and its bytes without that.

    Raises:
        UsageError: there is no such file.
        DataError: it cannot be read, or is no JSON.
    """
    data = read_unpacked(path, what)
    try:
        return from_json(data), data  # twice as fast as json.loads
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); restore it, or make it anew") from None


@without_garbage_collection()
def read_annotations(path: Path) -> AnnotationFile:
    """Reads a file of COCO's instance annotations.

    Raises:
        UsageError: there is no such file.
        DataError: it is not COCO's JSON, or an entry cannot be right; the message names the entry.
    """
    content, data = read_json(path, "annotations")
    if not isinstance(content, dict):
        raise DataError(f"{path} is no COCO annotations file: it holds no object with {', '.join(FIELDS)}")
    lists = {name: _entries(path, content, name) for name in FIELDS}
    for name in ("images", "categories"):
        if not lists[name]:
            raise DataError(f"{path} lists no {name}")
    _check_annotations(path, lists)
    return AnnotationFile(path, hashlib.sha256(data).hexdigest(), **lists)


def _entries(path: Path, content: Entry, name: str) -> list[Entry]:
    """One of the file's lists, where every entry has the needed fields and an id of its own."""
    entries = content.get(name)
    if not isinstance(entries, list):
        raise DataError(f"{path} is no COCO annotations file: it has no list '{name}'")
    fields = FIELDS[name]
    for position, entry in enumerate(entries, start=1):
        if type(entry) is not dict:
            raise DataError(f"{path}: entry {position} of '{name}' is no object")
        for field, kinds in fields.items():
            if type(entry.get(field)) not in kinds:
                raise DataError(_wrong_field(path, name, position, entry, field))
    if len({entry["id"] for entry in entries}) < len(entries):
        counts = Counter(entry["id"] for entry in entries)
        twice = next(number for number, times in counts.items() if times > 1)
        raise DataError(f"{path}: id {twice} occurs twice in '{name}'")
    return entries


def _wrong_field(path: Path, name: str, position: int, entry: Entry, field: str) -> str:
    known = type(entry.get("id")) is int
    which = f"the entry of '{name}' with id {entry['id']}" if known else f"entry {position} of '{name}'"
    if field not in entry:
        return f"{path}: {which} has no '{field}'"
    return f"{path}: {which} has no right '{field}': it is not {WORDS[FIELDS[name][field]]}"


def _check_annotations(path: Path, lists: Mapping[str, list[Entry]]) -> None:
    images = {image["id"]: image for image in lists["images"]}
    categories = {category["id"] for category in lists["categories"]}
    for annotation in lists["annotations"]:
        wrong = None
        if annotation["image_id"] not in images:
            wrong = f"is of image {annotation['image_id']}, which is not in 'images'"
        elif annotation["category_id"] not in categories:
            wrong = f"is of category {annotation['category_id']}, which is not in 'categories'"
        elif not (len(annotation["bbox"]) == 4 and _are_numbers(annotation["bbox"])):
            wrong = "has a 'bbox' that is not four numbers"
        elif not _are_numbers([annotation["area"]]):
            wrong = "has an 'area' that is not finite"
        elif annotation["iscrowd"] not in (0, 1):
            wrong = "has an 'iscrowd' that is neither 0 nor 1"
        elif not _is_segmentation(annotation.get("segmentation", []), images[annotation["image_id"]]):
            wrong = "has a 'segmentation' that is neither polygons nor an RLE of its image's size"
        if wrong:
            raise DataError(f"{path}: annotation {annotation['id']} {wrong}")


def _is_segmentation(value: Any, image: Entry) -> bool:
    if isinstance(value, list):
        return all(
            type(polygon) is list and polygon and len(polygon) % 2 == 0 and _are_numbers(polygon)
            for polygon in value
        )
    return is_rle(value, image["height"], image["width"])


def _are_numbers(values: list[Any]) -> bool:
    """Whether all are finite numbers; their sum tells, and is quick."""
    try:
        return isfinite(sum(values))
    except (TypeError, OverflowError):
        return False
