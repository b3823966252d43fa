"""Write small datasets; paths of the real samples."""

import json
import os
from pathlib import Path
from typing import Any

from PIL import Image
from pycocotools import mask as coco_mask

from sdabench.data.folders import Item
from sdabench.data.imagenet import class_indices
from sdabench.data.official import val_labels
from tests.helpers.paths import CHECKOUT

SHARED = CHECKOUT.parent / "shared/data"
SAMPLE = Path(os.environ.get("SDABENCH_IMAGENET_SAMPLE", SHARED / "imagenet-sample"))
COCO_SAMPLE = Path(os.environ.get("SDABENCH_COCO_SAMPLE", SHARED / "coco-sample"))


def make_imagenet(root: Path, classes: int = 3, images: int = 2) -> Path:
    """Write a small ImageNet folder of JPEG files: val/<wnid>/*.JPEG for every 300th class."""
    for index, wnid in enumerate(list(class_indices())[::300][:classes]):
        folder = root / "val" / wnid
        folder.mkdir(parents=True)
        for number in range(images):
            hue = Image.linear_gradient("L").rotate(40 * index + 20 * number).resize((96 + 10 * number, 80))
            Image.merge("RGB", (hue, hue.transpose(Image.Transpose.FLIP_LEFT_RIGHT), hue)).save(
                folder / f"photo_{number}.JPEG", quality=90
            )
    return root


def official_val_items() -> list[Item]:
    """List items like the 50,000 official validation images: names, classes and plausible sizes."""
    wnids = list(class_indices())
    items = [
        Item(f"{wnids[label]}/ILSVRC2012_val_{number:08}.JPEG", 134_000, label)
        for number, label in enumerate(val_labels(), start=1)
    ]
    return sorted(items, key=lambda item: item.path)


def make_coco(root: Path) -> Path:
    """Write a small COCO folder of JPEG files, val2017 alone, with the rare cases of the real one.

    Image 7 has two polygons and a crowd as an uncompressed RLE, 21 only a crowd as a compressed RLE, 22 is
    gray and has no annotation, 40 has a box without area. Category ids have gaps and are out of order.
    """
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    for number in (7, 21, 22, 40):
        picture = Image.linear_gradient("L").rotate(number).resize((60, 50))
        picture.convert("L" if number == 22 else "RGB").save(root / f"val2017/{number:012d}.jpg")
    square = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
    runs = {"size": [50, 60], "counts": [1000, 50, 1950]}
    compressed = coco_mask.frPyObjects(runs, 50, 60)["counts"].decode()
    annotations = [
        (9, 40, 90, [5.0, 5.0, 8.0, 0.0], 0.0, 0, [[5.0, 5.0, 5.0, 5.0, 13.0, 5.0, 13.0, 5.0]]),
        (1, 7, 90, [10.0, 10.0, 20.0, 20.0], 400.0, 0, square),
        (2, 7, 1, [0, 40, 10, 10], 100, 0, [[0, 40, 10, 40, 10, 50, 0, 50], [1, 1, 2, 1, 2, 2]]),
        (3, 7, 90, [20.0, 0.0, 1.0, 50.0], 50.0, 1, runs),
        (4, 21, 1, [20.0, 0.0, 1.0, 50.0], 50.0, 1, {"size": [50, 60], "counts": compressed}),
    ]
    fields = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
    content = {
        "info": {"description": "a test"},
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "height": 50, "width": 60}
            for number in (40, 7, 22, 21)
        ],
        "annotations": [dict(zip(fields, one, strict=True)) for one in annotations],
        "categories": [{"id": 90, "name": "kite"}, {"id": 7, "name": "cat"}, {"id": 1, "name": "person"}],
    }
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return root


def write_annotations(root: Path, split: str, annotations: list[dict[str, Any]]) -> None:
    """Write a COCO split of one image of 60 x 50 pixels and the categories cat and dog."""
    (root / f"{split}2017").mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    Image.linear_gradient("L").resize((60, 50)).convert("RGB").save(root / f"{split}2017/1.jpg")
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 50, "width": 60}],
        "annotations": [{"id": number} | one for number, one in enumerate(annotations, start=1)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
