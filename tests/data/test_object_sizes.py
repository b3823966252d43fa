from math import sqrt
from pathlib import Path

import pytest

from sdabench.data.coco import read_coco
from sdabench.data.imagenet import read_imagenet
from sdabench.data.object_sizes import has_object_sizes, object_sizes
from sdabench.data.synthetic.classification import read_classification
from sdabench.errors import DataError, UsageError

XML = """<annotation><size><width>200</width><height>100</height></size>{}</annotation>"""
BOX = "<object><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def test_sizes_of_generated_objects_lie_in_their_octaves(textures):
    split = read_classification(textures, "val")
    sizes = object_sizes(split)
    assert len(sizes) == 4
    for item, size in zip(split.items, sizes, strict=True):
        octave = (-1, -2, -3)[int(item.path[-10:-5]) % 3]
        assert size is not None
        assert 2**octave <= size * 1.001 < 2 ** (octave + 1) * 1.002


def test_size_of_coco_objects_is_the_geometric_mean_of_boxes(coco):
    # Image 7 has boxes of 20x20 and another; crowds (21) and boxes without area (40) are no objects.
    split = read_coco(coco, "val")
    sizes = dict(zip([item.id for item in split.items], object_sizes(split), strict=True))
    areas = [one.bbox[2] * one.bbox[3] for one in split.items[0].annotations if not one.iscrowd]
    assert len(areas) == 2
    assert sizes[7] == pytest.approx((areas[0] * areas[1]) ** 0.25 / 50)  # the images are 60x50
    assert [sizes[number] for number in (21, 22, 40)] == [None, None, None]


def write_boxes(folder: Path, split, text: str) -> Path:
    file = folder / Path(split.items[0].path).with_suffix(".xml").name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return folder


def test_size_of_imagenet_objects_is_that_of_their_boxes(imagenet, tmp_path):
    split = read_imagenet(imagenet)
    text = XML.format(BOX.format(50, 60) + BOX.format(20, 30))  # 40x40 and 10x10 pixels
    sizes = object_sizes(split, write_boxes(tmp_path / "boxes", split, text))
    assert sizes[0] == pytest.approx(sqrt(0.4 * 0.1))
    assert sizes[1] is None  # without a file


def test_boxes_beside_imagenet_are_found(imagenet):
    split = read_imagenet(imagenet)
    assert not has_object_sizes(split)
    write_boxes(imagenet / "Annotations/CLS-LOC/val", split, XML.format(BOX.format(60, 70)))
    assert has_object_sizes(split)
    assert object_sizes(split)[0] == pytest.approx(0.5)


def test_unknown_sizes_are_an_error(imagenet, tmp_path):
    split = read_imagenet(imagenet)
    with pytest.raises(UsageError, match="--boxes"):
        object_sizes(split)
    with pytest.raises(DataError, match="no boxes of the images"):
        object_sizes(split, tmp_path)
    with pytest.raises(DataError, match="PASCAL VOC"):
        object_sizes(split, write_boxes(tmp_path, split, "<annotation>"))
