"""Detector inputs from COCO files: boxes and masks by hand, images compared with a second implementation."""

import json
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from sdabench.data.coco import read_coco
from sdabench.data.coco_images import (
    DetectionBatch,
    DetectionImages,
    DetectionTrainingImages,
    detection_target,
)
from sdabench.data.description import Resizing
from sdabench.data.images import collate
from sdabench.errors import DataError
from sdabench.hashing import sha256_of_file
from sdabench.models.inputs import resized_shape
from tests.helpers.datasets import COCO_SAMPLE

collate_detection = partial(collate, DetectionBatch.of, False)
WIDTH, HEIGHT = 60, 50
SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]]


def annotation(bbox, area=100.0, iscrowd=0, segmentation=SQUARE, category=1):
    return {
        "bbox": bbox,
        "area": area,
        "iscrowd": iscrowd,
        "segmentation": segmentation,
        "category_id": category,
    }


def make_split(root, *of_images):
    """Write a training split of noise images of 60 x 50 pixels with the given annotations of each image."""
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    annotations = []
    for number, image_annotations in enumerate(of_images, start=1):
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"train2017/{number}.jpg", quality=95)
        for one in image_annotations:
            annotations.append({"id": len(annotations) + 1, "image_id": number} | one)
    images = [
        {"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH}
        for number in range(1, len(of_images) + 1)
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 7, "name": "cat"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    return read_coco(root, "train")


def make_target(root, *objects, size=(HEIGHT, WIDTH), flipped=False, masks=False):
    return detection_target(make_split(root, objects).items[0], size, flipped, masks)


def test_crowds_and_degenerate_boxes_are_left_out(tmp_path):
    target = make_target(
        tmp_path,
        annotation([10, 10, 20, 10], category=7),
        annotation([10, 10, 20, 10], iscrowd=1),
        annotation([10, 10, 20, 10], area=0.0),
        annotation([10, 10, 0.9, 10]),
        annotation([10, 10, 20, 0.9]),
        annotation([60, 10, 20, 10]),
        annotation([-9, 10, 9, 10]),
        annotation([10, 50, 20, 10]),
        annotation([10, 10, 1, 1]),
    )
    assert target["boxes"].tolist() == [[10, 10, 30, 20], [10, 10, 11, 11]]
    assert target["labels"].tolist() == [2, 1]
    assert (target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
    assert "masks" not in target


def test_boxes_are_clipped_to_the_image_and_keep_an_area(tmp_path):
    objects = (annotation([-5.5, 40.25, 20, 30]), annotation([59.99, 10, 20, 10]))
    assert make_target(tmp_path, *objects)["boxes"][0].tolist() == [0, 40.25, 14.5, 50]
    boxes = detection_target(read_coco(tmp_path, "train").items[0], (1111, 1333), True, False)["boxes"]
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_image_with_only_crowds_has_no_objects(tmp_path):
    target = make_target(tmp_path, annotation([10, 10, 20, 10], iscrowd=1), masks=True)
    assert (target["boxes"].shape, target["labels"].shape, target["masks"]) == ((0, 4), (0,), [])


def test_boxes_are_scaled_and_flipped(tmp_path):
    objects = (annotation([10, 20, 30, 25]),)
    assert make_target(tmp_path / "a", *objects, size=(100, 180))["boxes"].tolist() == [[30, 40, 120, 90]]
    flipped = make_target(tmp_path / "b", *objects, size=(100, 180), flipped=True)["boxes"]
    assert flipped.tolist() == [[60, 40, 150, 90]]


TRIANGLE = [[12.3, 8.7, 48.1, 15.2, 20.5, 44.9]]
TWO_PARTS = [
    [5.0, 5.0, 20.0, 5.0, 20.0, 25.0],
    [30.2, 30.4, 55.1, 30.4, 55.1, 45.3, 30.2, 45.3],
    [1.0, 2.0, 3.0, 4.0],
]


@pytest.mark.parametrize("polygons", [TRIANGLE, TWO_PARTS])
@pytest.mark.parametrize("size", [(50, 60), (101, 87)])
def test_polygon_masks_are_scaled_and_flipped(tmp_path, polygons, size):
    """Polygons are drawn at the resized size; except for outline pixels, the flipped mask is the mask flipped."""
    objects = (annotation([5, 5, 50, 40], segmentation=polygons),)
    split = make_split(tmp_path, objects)
    plain, flipped = (
        coco_mask.decode(detection_target(split.items[0], size, flip, True)["masks"][0])
        for flip in (False, True)
    )
    scale = np.array([size[1] / WIDTH, size[0] / HEIGHT])
    scaled = [(np.reshape(each, (-1, 2)) * scale).flatten().tolist() for each in polygons if len(each) > 4]
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(scaled, *size)))
    np.testing.assert_array_equal(plain, drawn)
    mirrored = drawn[:, ::-1]
    assert flipped.shape == size
    assert (flipped & mirrored).sum() / (flipped | mirrored).sum() > 0.93
    assert (flipped & drawn).sum() / (flipped | drawn).sum() < 0.6


@pytest.mark.parametrize("compressed", [False, True])
def test_rle_masks_are_resized_to_the_nearest_pixel(tmp_path, compressed):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[10:20, 5:40] = 1
    mask[30:35, 7] = 1
    column_major = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], column_major])))
    runs = {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges, mask.size]).tolist()}
    if compressed:
        runs["counts"] = coco_mask.frPyObjects(runs, HEIGHT, WIDTH)["counts"].decode()
    split = make_split(tmp_path, [annotation([5, 10, 35, 25], segmentation=runs)])
    for size, flip in product([(HEIGHT, WIDTH), (100, 180), (33, 40)], (False, True)):
        [rle] = detection_target(split.items[0], size, flip, True)["masks"]
        rows = np.arange(size[0]) * HEIGHT // size[0]
        columns = np.arange(size[1]) * WIDTH // size[1]
        expected = mask[rows][:, columns]
        np.testing.assert_array_equal(coco_mask.decode(rle), expected[:, ::-1] if flip else expected)


@pytest.mark.parametrize("segmentation", [[], [[1.0, 2.0, 3.0, 4.0]]])
def test_object_without_mask_is_an_error_only_with_masks(tmp_path, segmentation):
    split = make_split(tmp_path, [annotation([10, 10, 20, 10], segmentation=segmentation)])
    resizing = Resizing(short=50, long=60)
    boxes, masks = (DetectionTrainingImages(split, resizing, 0.5, 0, masks)[0, 0] for masks in (False, True))
    assert len(boxes.target["boxes"]) == 1
    assert isinstance(masks, DataError)
    assert "1.jpg: annotation 1 has no" in str(masks)


def test_resized_image_equals_interpolation_within_one(tmp_path):
    split = make_split(tmp_path, [])
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / "train2017/1.jpg"))).permute(2, 0, 1)
    for short, long in ((75, 200), (31, 200), (75, 80)):
        size = resized_shape(HEIGHT, WIDTH, short, long)
        sample = DetectionImages(split, Resizing(short=short, long=long))[0]
        exact = torch.nn.functional.interpolate(
            pixels[None].double(), size, mode="bilinear", align_corners=False
        )[0]
        assert sample.image.shape == (3, *size)
        assert sample.image.dtype == torch.uint8
        assert (sample.image.double() - exact).abs().max() < 1.001  # rounded along rows, then along columns
    unresized = DetectionImages(split, Resizing(short=50, long=60))[0]
    assert torch.equal(unresized.image, pixels)
    assert unresized.target is None
    assert unresized.sha256 == sha256_of_file(tmp_path / "train2017/1.jpg")


def test_gray_images_become_three_channels(coco):
    split = read_coco(coco, "val")
    [gray] = [index for index, item in enumerate(split.items) if item.id == 22]
    image = DetectionImages(split, Resizing.at(50))[gray].image
    assert image.shape == (3, 50, 60)
    assert torch.equal(image[0], image[2])


def batches(split, workers, seed=0):
    images = DetectionTrainingImages(split, Resizing(short=50, long=80), 0.5, seed, masks=True)
    keys = [[(epoch, index), (epoch, index + 1)] for epoch in range(3) for index in (0, 2)]
    return list(DataLoader(images, batch_sampler=keys, num_workers=workers, collate_fn=collate_detection))


def equal(first, second):
    return (
        all(torch.equal(a, b) for a, b in zip(first.images, second.images, strict=True))
        and all(
            torch.equal(a["boxes"], b["boxes"]) for a, b in zip(first.targets, second.targets, strict=True)
        )
        and all(
            torch.equal(a["masks"].bits, b["masks"].bits)
            for a, b in zip(first.targets, second.targets, strict=True)
        )
    )


def test_flips_depend_on_seed_epoch_and_image_not_on_workers(tmp_path):
    split = make_split(tmp_path, *[[annotation([10, 10, 20, 10])]] * 4)
    serial = batches(split, 0)
    assert all(equal(one, other) for one, other in zip(serial, batches(split, 2), strict=True))
    lefts = [batch.targets[place]["boxes"][0, 0].item() for batch in serial for place in range(2)]
    assert set(lefts) == {10.0, 30.0}  # in images 60 pixels wide
    epochs = [tuple(lefts[start : start + 4]) for start in (0, 4, 8)]
    assert len(set(epochs)) > 1
    assert not all(equal(one, other) for one, other in zip(serial, batches(split, 0, seed=1), strict=True))


def test_image_boxes_and_masks_are_flipped_together(tmp_path):
    split = make_split(tmp_path, [annotation([10, 10, 20, 10])])
    plain, flipped = (DetectionTrainingImages(split, Resizing.at(50), flip, 0, True)[0, 0] for flip in (0, 1))
    assert torch.equal(flipped.image, plain.image.flip(2))
    assert plain.target["boxes"].tolist() == [[10, 10, 30, 20]]
    assert flipped.target["boxes"].tolist() == [[30, 10, 50, 20]]
    [inside] = flipped.target["masks"].unpacked(torch.tensor([0]))
    assert inside.sum() == 200
    assert inside[10:20, 30:50].all()


def test_half_of_the_images_are_flipped(tmp_path):
    split = make_split(tmp_path, [annotation([10, 10, 20, 10])])
    images = DetectionTrainingImages(split, Resizing.at(50), 0.5, 0, False)
    state = torch.get_rng_state()
    flips = [images[epoch, 0].target["boxes"][0, 0].item() == 30 for epoch in range(200)]
    assert 80 <= sum(flips) <= 120
    assert torch.equal(torch.get_rng_state(), state)


def test_image_size_that_contradicts_annotations_is_an_error(tmp_path):
    split = make_split(tmp_path, [annotation([10, 10, 20, 10])], [])
    Image.new("RGB", (50, 60)).save(tmp_path / "train2017/1.jpg")
    resizing = Resizing.at(50)
    for error in (
        DetectionImages(split, resizing)[0],
        DetectionTrainingImages(split, resizing, 0, 0, False)[0, 0],
    ):
        assert isinstance(error, DataError)
        assert "1.jpg has 50x60 pixels, but its annotations say 60x50" in str(error)
    good = DetectionImages(split, resizing)[1]
    assert collate_detection([good, error]) is error
    batch = collate(DetectionBatch.of, True, [good, error])
    assert (len(batch), batch.indices, batch.skipped) == (1, [1], [str(error)])
    assert collate(DetectionBatch.of, True, [error]) is error


def test_batch_is_split_into_micro_batches_and_scaled_to_one(tmp_path):
    split = make_split(tmp_path, *[[annotation([10 + place, 10, 20, 10])] for place in range(5)])
    images = DetectionTrainingImages(split, Resizing.at(50), 0, 0, True)
    batch = collate_detection([images[0, index] for index in range(5)])
    sizes = [len(micro_batch) for micro_batch in batch.micro_batches(2)]
    assert sizes == [3, 2]
    lefts = [
        each["boxes"][0, 0].item() for micro_batch in batch.micro_batches(2) for each in micro_batch.targets
    ]
    assert lefts == [10, 11, 12, 13, 14]
    moved = batch.to(torch.device("cpu"), torch.contiguous_format)
    assert torch.equal(moved.images[4], batch.images[4].float() / 255)
    assert torch.equal(moved.targets[4]["masks"].bits, batch.targets[4]["masks"].bits)


@pytest.mark.skipif(not COCO_SAMPLE.is_dir(), reason="the real sample is not here")
def test_targets_of_real_images_have_boxes_inside_and_masks():
    split = read_coco(COCO_SAMPLE, "train").with_annotations()
    resizing = Resizing(short=200, long=333)
    images = DetectionTrainingImages(split, resizing, 0.5, 0, masks=True)
    number, distances = 0, []
    for index, item in enumerate(split.items):
        sample = images[0, index]
        _, height, width = sample.image.shape
        assert (height, width) == resized_shape(item.height, item.width, 200, 333)
        boxes = sample.target["boxes"]
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes <= torch.tensor([width, height] * 2)).all()
        assert sample.target["labels"].min() >= 1
        assert sample.target["labels"].max() <= 80
        assert len(sample.target["masks"]) == len(boxes) == len(sample.target["labels"])
        number += len(boxes)
        for box, mask in zip(boxes, sample.target["masks"].unpacked(torch.arange(len(boxes))), strict=True):
            left, top, w, h = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask))).tolist()
            mask_box = torch.tensor([left, top, left + w, top + h])
            distances.append((mask_box - box).abs().max().item() if w else np.inf)
    crowds = sum(one.iscrowd for item in split.items for one in item.annotations)
    assert number == sum(len(item.labels) for item in split.items) - crowds
    assert np.median(distances) < 1.3  # pixels
    assert np.quantile(distances, 0.95) < 3  # the mask of an object thinner than a pixel may be empty


def test_subset_is_indexed_from_zero(coco):
    split = read_coco(coco, "val")
    shorter = replace(split, items=split.items[1:])
    first = DetectionImages(shorter, Resizing.at(50))[0]
    assert (first.index, first.sha256) == (0, sha256_of_file(coco / "val2017/000000000021.jpg"))
