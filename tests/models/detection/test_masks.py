"""Mask targets and pasted masks: golden values by hand or by loops."""

from itertools import product

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sdabench.models.detection.masks import PackedMasks, mask_targets, paste
from tests.helpers.detectors import rectangle_mask, rle_of


def targets_of(masks, size, matched, boxes, image):
    return mask_targets(PackedMasks.of(masks, size), torch.tensor(matched), torch.tensor(boxes), image, 28)


def test_mask_targets_are_cropped_to_their_boxes():
    """A rectangle over the left half of a box, and shifted boxes; another mask at half the image's size."""
    left_half = coco_mask.frPyObjects([[10.0, 10, 24, 10, 24, 38, 10, 38]], 50, 60)
    boxes = [[10.0, 10, 38, 38], [17.0, 10, 45, 38], [40.0, 0, 60, 9]]
    targets = targets_of([coco_mask.merge(left_half)], (50, 60), [0, 0, 0], boxes, (50, 60))
    halves = torch.zeros(28, 28)
    halves[:, :14] = 1
    assert torch.equal(targets[0], halves)
    assert torch.equal(targets[1], halves.roll(-7, dims=1) * (torch.arange(28) < 7))
    assert not targets[2].any()
    smaller = rle_of(rectangle_mask([5, 5, 10, 10], 25, 30))
    [target] = targets_of([smaller], (25, 30), [0], [[10.0, 10, 20, 20]], (50, 60))
    assert target[2:26].eq(1).all()  # its corners are rounded, within two bins
    assert target[:, 2:26].eq(1).all()


def test_each_box_has_the_target_of_its_mask_among_many():
    """Twenty squares in more than two blocks of masks, of which the matched ones are not all."""
    squares = [[3 * index, 4.0, 3 * index + 3, 7.0] for index in range(20)]
    masks = [rle_of(rectangle_mask(box, 20, 61)) for box in squares]
    matched = [19, 2, 2, 0, *range(4, 18)]
    targets = targets_of(masks, (20, 61), matched, [squares[index] for index in matched], (20, 61))
    assert targets.mean(dim=(1, 2)).min() > 0.9
    others = targets_of(masks, (20, 61), matched, [squares[(index + 1) % 20] for index in matched], (20, 61))
    assert others.mean(dim=(1, 2)).max() < 0.1


def test_mask_targets_are_binary():
    disc = torch.linspace(-1, 1, 40).square()
    mask = rle_of(disc[:, None] + disc < 0.8)
    [target] = targets_of([mask], (40, 40), [0], [[3.3, 4.1, 36.2, 30.7]], (40, 40))
    assert set(target.unique().tolist()) == {0.0, 1.0}
    assert target[14, 14] == 1


def test_packed_masks_are_the_decoded_ones():
    masks = [rle_of(torch.rand(5, 13) < 0.5) for _ in range(3)]
    packed = PackedMasks.of(masks, (5, 13))
    assert packed.bits.shape == (3, 5, 2)
    expected = torch.stack([torch.from_numpy(coco_mask.decode(each)) for each in masks])
    assert torch.equal(packed.unpacked(torch.tensor([2, 0])), expected[[2, 0]])


def decode_all(rles):
    return [coco_mask.decode(each) for each in rles]


@pytest.mark.parametrize("box", [(3, 5, 20, 25), (0, 0, 28, 28), (40, 30, 60, 50), (59, 49, 60, 50)])
def test_full_mask_fills_its_box_to_the_pixel(box):
    [mask] = decode_all(paste(torch.ones(1, 28, 28), torch.tensor([box]).float(), (50, 60)))
    np.testing.assert_array_equal(mask, rectangle_mask(box, 50, 60))


def paste_by_loops(probability, box, height, width):
    """Sample bilinearly at the pixel centers, with zeros around the 28 x 28 mask."""
    padded = np.pad(probability.double().numpy(), 1)
    left, top, right, bottom = box
    mask = np.zeros((height, width))
    for row, column in product(range(height), range(width)):
        v = (row + 0.5 - top) / (bottom - top) * 28 + 0.5
        u = (column + 0.5 - left) / (right - left) * 28 + 0.5
        if 0 <= v < 29 and 0 <= u < 29:
            i, j, dy, dx = int(v), int(u), v % 1, u % 1
            upper = padded[i, j] * (1 - dx) + padded[i, j + 1] * dx
            lower = padded[i + 1, j] * (1 - dx) + padded[i + 1, j + 1] * dx
            mask[row, column] = upper * (1 - dy) + lower * dy >= 0.5
    return mask


@pytest.mark.parametrize(
    "box",
    [(3.3, 5.1, 55.7, 44.2), (-10.2, -7.5, 30.1, 20.3), (41.7, 33.3, 90.4, 77.7), (10.2, 10.4, 10.9, 30.8)],
)
def test_mask_pasting_equals_plain_loops_across_the_border(box):
    probability = torch.rand(28, 28)
    [mask] = decode_all(paste(probability[None], torch.tensor([box]), (50, 60)))
    np.testing.assert_array_equal(mask, paste_by_loops(probability, box, 50, 60))


def test_masks_of_empty_or_outside_boxes_are_empty():
    boxes = torch.tensor(
        [[5.0, 5, 5, 5], [5.0, 5, 9, 5], [70.0, 5, 80, 9], [-9.0, -9, -5, -5], [5.0, 60, 9, 70]]
    )
    assert not any(mask.any() for mask in decode_all(paste(torch.ones(5, 28, 28), boxes, (50, 60))))
    assert paste(torch.ones(0, 28, 28), torch.zeros(0, 4), (50, 60)) == []
