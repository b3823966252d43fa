"""Read the sizes of the objects in images: of generated data, COCO, and ImageNet with boxes. Free of torch.

A size is a share of the short side of the image. That of a box is the square root of its area.
"""

import csv
from collections.abc import Iterable, Iterator
from math import exp, fsum, log, sqrt
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from sdabench.data.coco import CocoImage, CocoSplit
from sdabench.data.objects import is_scored
from sdabench.data.split import Split
from sdabench.errors import DataError, UsageError

OBJECTS = "objects.csv"  # of a generated dataset for classification
KAGGLE = ("Annotations/CLS-LOC", "ILSVRC/Annotations/CLS-LOC")  # boxes beside ImageNet's images


class DrawnObject(NamedTuple):
    """The object of a generated image: its octave, and its diameter as a share of the short side."""

    octave: int
    size: float


def object_sizes(split: Split, boxes: Path | None = None) -> list[float | None]:
    """Return the geometric mean of the sizes of the objects in each image; None without an object.

    Args:
        boxes: folder with the XML files of ImageNet's boxes [default: Kaggle's beside the images].

    Raises:
        UsageError: the sizes of this dataset are unknown.
        DataError: a file with them is damaged, or describes other images.
    """
    if isinstance(split, CocoSplit):
        if boxes is not None:
            raise UsageError("--boxes is for ImageNet; COCO's annotations have boxes, so leave it out")
        return [_mean(_coco_sizes(item)) for item in split.items]
    if split.dataset == "synthetic":
        if boxes is not None:
            raise UsageError("--boxes is for ImageNet; generated images have known sizes, so leave it out")
        drawn = read_objects(split.root.parent / OBJECTS)
        names = [f"{split.split}/{item.path}" for item in split.items]
        if unknown := [name for name in names if name not in drawn]:
            raise DataError(f"{split.root.parent / OBJECTS} has no {unknown[0]}; generate the dataset again")
        return [drawn[name].size for name in names]
    folder = boxes or _boxes_beside(split)
    if folder is None:
        raise UsageError(
            f"the sizes of the objects in {split.root} are unknown; name a folder of XML files with --boxes"
        )
    sizes = [_mean(_xml_sizes(folder, split, item.path)) for item in split.items]
    if not any(sizes):
        raise DataError(f"{folder} has no boxes of the images in {split.root}; name another --boxes")
    return sizes


def has_object_sizes(split: Split) -> bool:
    """Whether the sizes of the objects are known without naming a folder of boxes."""
    return isinstance(split, CocoSplit) or split.dataset == "synthetic" or _boxes_beside(split) is not None


def read_objects(path: Path, step: str = "generate the dataset again") -> dict[str, DrawnObject]:
    """Read the objects of a generated dataset by the paths of their images.

    Args:
        step: what to do if the file cannot be read, for the error.

    Raises:
        UsageError: the file cannot be read.
        DataError: it is another file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {
                line["path"]: DrawnObject(
                    int(line["octave"]),
                    float(line["size_px"]) / min(int(line["width"]), int(line["height"])),
                )
                for line in csv.DictReader(file)
            }
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; {step}") from None
    except (KeyError, TypeError, ValueError, ZeroDivisionError, csv.Error):
        raise DataError(f"{path} is not the objects.csv of a generated dataset; {step}") from None


def _coco_sizes(item: CocoImage) -> Iterator[float]:
    short = min(item.width, item.height)
    for one in item.annotations:
        _, _, width, height = one.bbox
        if is_scored(one.iscrowd, one.area) and width > 0 and height > 0:
            yield sqrt(width * height) / short


def _boxes_beside(split: Split) -> Path | None:
    """Return Kaggle's folder of boxes for a split, if it is beside the images."""
    if split.dataset != "imagenet":
        return None
    folders = (parent / name / split.split for parent in split.root.parents[:4] for name in KAGGLE)
    return next((folder for folder in folders if folder.is_dir()), None)


def _xml_sizes(folder: Path, split: Split, path: str) -> Iterator[float]:
    """Yield the sizes of the boxes of an image, from a file in the folder or in that of its class."""
    name = Path(path).with_suffix(".xml")
    candidates = [folder / name, folder / name.name, folder / split.split / name.name]
    file = next((each for each in candidates if each.is_file()), None)
    if file is None:
        return
    try:
        root = ElementTree.parse(file).getroot()
        short = min(_number(root, f"size/{side}") for side in ("width", "height"))
        for box in root.iterfind("object/bndbox"):
            width = _number(box, "xmax") - _number(box, "xmin")
            height = _number(box, "ymax") - _number(box, "ymin")
            yield sqrt(width * height) / short
    except (ElementTree.ParseError, ValueError, ZeroDivisionError):
        raise DataError(f"{file} is not an annotation of PASCAL VOC with boxes; restore it") from None


def _number(element: ElementTree.Element, path: str) -> float:
    return float(element.findtext(path) or "")


def _mean(sizes: Iterable[float]) -> float | None:
    logs = [log(size) for size in sizes if size > 0]
    return exp(fsum(logs) / len(logs)) if logs else None
