"""What training uses, what AP counts, and which masks native code receives."""

import json
import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sdabench.data.coco import read_coco
from sdabench.data.coco_images import detection_target
from sdabench.data.masks import compressed_rle, is_absent, mask_problem
from sdabench.data.objects import is_scored
from sdabench.errors import DataError, NothingMeasuredError
from tests.helpers.coco_cases import make_annotation, make_detection, polygon
from tests.helpers.datasets import COCO_SAMPLE, write_annotations

SIZE = (50, 60)
BOX = [10, 10, 20, 10]
LEFT_OUT = {
    "crowds": {"iscrowd": 1},
    "of area 0": {"area": 0},
    "below a pixel": {"bbox": [10, 10, 20, 0.5]},
    "outside the image": {"bbox": [60, 10, 20, 10]},
    "with an empty mask": {"segmentation": [[10, 10, 20, 20, 30, 30]]},
}


def make_split(root, *objects, split="train"):
    """Write a split of one image of 60 x 50 pixels with the given annotations."""
    annotations = [
        {"image_id": 1, "category_id": 1, "bbox": BOX, "area": 200, "iscrowd": 0}
        | {"segmentation": [polygon(*BOX)]}
        | one
        for one in objects
    ]
    write_annotations(root, split, annotations)
    return read_coco(root, split)


@pytest.mark.parametrize(("why", "change"), LEFT_OUT.items())
def test_what_training_leaves_out_is_counted_and_alone_refused(tmp_path, why, change):
    masks = why == "with an empty mask"
    split = make_split(tmp_path / "some", {}, change, {})
    counts = split.count_objects(masks)
    assert counts.describe_unused() == f"1 of 3 annotations unused: 1 {why}"
    assert len(detection_target(split.items[0], SIZE, False, masks)["boxes"]) == 2
    assert split.check_trainable(masks).endswith(
        f": 1 of 3 annotations unused: 1 {why}; 1 of 2 categories have no usable object (dog)"
    )
    with pytest.raises(NothingMeasuredError, match=f"has no usable object .*2 of 2 .*unused: 2 {why}"):
        make_split(tmp_path / "all", change, change).check_trainable(masks)


def test_training_without_annotations_is_refused(tmp_path):
    with pytest.raises(NothingMeasuredError, match=r"has no usable object \(no annotation\); correct"):
        make_split(tmp_path).with_annotations().check_trainable(masks=False)


def test_an_empty_mask_is_left_out_only_with_masks(tmp_path):
    split = make_split(tmp_path, LEFT_OUT["with an empty mask"])
    split.check_trainable(masks=False)
    with pytest.raises(NothingMeasuredError, match="1 with an empty mask"):
        split.check_trainable(masks=True)


def test_usable_categories_alone_give_no_notice(tmp_path):
    assert make_split(tmp_path, {}, {"category_id": 2}).check_trainable(masks=True) is None


def test_masks_of_unused_annotations_are_not_needed_for_training(tmp_path):
    crowd = {"iscrowd": 1, "segmentation": None}
    make_split(tmp_path / "crowd", {}, crowd).check_trainable(masks=True)
    with pytest.raises(DataError, match="annotation 2 has no mask, so masks cannot be trained"):
        make_split(tmp_path / "object", {}, {"segmentation": None}).check_trainable(masks=True)


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([], "has no annotation in 1 images"),
        ([{"iscrowd": 1}, {"iscrowd": 1}], r"has only crowds in 1 images \(2 annotations with iscrowd 1\)"),
        ([{"area": -1}], "has no object with an area of 0 to 1e[+]10 pixels"),
    ],
)
def test_split_without_a_scorable_object_is_refused_with_the_reason(tmp_path, objects, words):
    with pytest.raises(NothingMeasuredError, match=words):
        make_split(tmp_path, *objects, split="val").check_scorable(masks=False)


@pytest.mark.parametrize("area", [-1, 0, 400, 1e10, 2e10])
@pytest.mark.parametrize("iscrowd", [0, 1])
def test_scored_annotations_are_those_of_pycocotools(area, iscrowd):
    truth, found = COCO(), COCO()
    one = make_annotation(area=area, iscrowd=iscrowd) | {"id": 1, "category_id": 1}
    truth.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": [one]}
    truth.createIndex()
    found.dataset = truth.dataset | {
        "annotations": [make_detection(1, category_id=1) | {"id": 1, "area": 400}]
    }
    found.createIndex()
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    assert is_scored(iscrowd, area) == (not evaluation.evalImgs[0]["gtIgnore"].any())


def test_boxes_that_reach_out_are_counted_beyond_rounding(tmp_path):
    boxes = ([-1, 0, 9, 9], [0, 45, 9, 5.5], [55, 0, 5.001, 9], [50, 40, 10, 10], [0, -0.02, 9, 9])
    assert make_split(tmp_path, *({"bbox": list(box)} for box in boxes)).count_objects().reaching_out == [
        ("train2017/1.jpg", number) for number in (1, 2, 5)
    ]


FAR = [[5, 5, 1e9, 5, 1e9, 1e9]]
BAD_MASKS = [
    (FAR, "coordinate 1e[+]09, far outside its 60 x 50 pixels"),
    ([[5, 5, -1e8, 5, 9, 9]], "coordinate -1e[+]08, far outside"),
    ([[5, 5, math.nan, 5, 9, 9]], "value that is not a finite number"),
    ([[5, 5, math.inf, 5, 9, 9]], "value that is not a finite number"),
    ([[5, 5, 10**400, 5, 9, 9]], "value that is not a finite number"),
    ([["1", 2, 3, 4, 5, 6]], "value that is not a finite number"),
    ([5, 5, 9, 5, 9, 9], "neither an RLE nor a list of polygons"),
    ([[1, 2, 3, 4, 5, 6, 7]], "polygon of 7 numbers"),
    ([[1, 2, 3, 4]], "no polygon of at least three points"),
    ({"size": [60, 50], "counts": [3000]}, "neither polygons nor an RLE of 50 x 60 pixels"),
    ({"size": [50, 60], "counts": [2**40]}, "neither polygons nor an RLE of 50 x 60 pixels"),
    ({"size": [50, 60], "counts": "0ooo0"}, "neither polygons nor an RLE of 50 x 60 pixels"),
    ({"size": [50, 60]}, "neither polygons nor an RLE"),
    ("text", "neither polygons nor an RLE"),
    (3, "neither polygons nor an RLE"),
]
PLACEHOLDERS = [
    None,
    [],
    [[]],
    [[], []],
    {},
    "",
    {"size": [50, 60], "counts": []},
    {"size": [50, 60], "counts": ""},
]


@pytest.mark.parametrize(("segmentation", "words"), BAD_MASKS)
def test_masks_that_native_code_must_not_receive_are_named(tmp_path, segmentation, words):
    split = make_split(tmp_path, {}, {"segmentation": segmentation}, split="val")
    split.check_scorable(masks=False)
    expected = f"instances_val2017.json: annotation 2 has a?.*{words}"
    with pytest.raises(DataError, match=expected):
        split.check_scorable(masks=True)
    with pytest.raises(DataError, match=words):
        detection_target(split.items[0], SIZE, False, masks=True)


@pytest.mark.parametrize("segmentation", PLACEHOLDERS)
def test_placeholders_are_no_masks(segmentation):
    assert is_absent(segmentation)
    assert mask_problem(segmentation, SIZE) == "has no mask"


@pytest.mark.parametrize(
    "segmentation",
    [
        [polygon(-20, -30, 500, 400)],
        [[], polygon(*BOX)],
        [polygon(*BOX), [1, 1, 40, 40]],
        {"size": [50.0, 60], "counts": [0, 3000]},
    ],
)
def test_masks_equal_pycocotools(segmentation):
    """Polygons may reach out of the image; empty ones and lines have no pixels."""
    assert mask_problem(segmentation, SIZE) is None
    expected = segmentation
    if isinstance(segmentation, list):
        expected = coco_mask.merge(coco_mask.frPyObjects([each for each in segmentation if each], *SIZE))
    else:
        expected = coco_mask.frPyObjects({"size": list(SIZE), "counts": segmentation["counts"]}, *SIZE)
    found = compressed_rle(segmentation, *SIZE)
    np.testing.assert_array_equal(coco_mask.decode(found), coco_mask.decode(expected))


@pytest.mark.skipif(not COCO_SAMPLE.is_dir(), reason="the real sample is not here")
@pytest.mark.parametrize("name", ["train", "val"])
def test_only_crowds_are_left_out_of_the_real_sample(name):
    split = read_coco(COCO_SAMPLE, name)
    counts = split.count_objects(masks=True)
    truth = json.loads(split.annotations_file.read_text())["annotations"]
    crowds = sum(one["iscrowd"] for one in truth)
    assert (counts.annotations, counts.unused) == (len(truth), {"crowds": crowds})
    assert counts.scored == len(truth) - crowds
    assert counts.reaching_out == list(split.mask_problems()) == []
