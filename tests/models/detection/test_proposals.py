"""Anchors, their matching and their losses as in mmdetection 2.x: golden values by hand or by loops."""

from fractions import Fraction
from itertools import product
from math import exp, log

import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from sdabench.models.detection import proposals as proposals_module
from sdabench.models.detection.proposals import BACKGROUND, IGNORED, Anchors, match
from tests.helpers.detectors import STRIDES, Constant, meta_detector, zero_maps


def test_anchors_use_each_levels_stride_without_rounding():
    """800 pixels have 13 positions of stride 64; torchvision would divide and use a stride of 61."""
    maps = zero_maps(800, 800)
    assert maps[-1].shape[-1] == 13
    [anchors] = Anchors(STRIDES)(ImageList(torch.zeros(1, 3, 800, 800), [(800, 800)]), maps)
    expected = []
    for stride, each in zip(STRIDES, maps, strict=True):
        for row, column in product(*map(range, each.shape[-2:])):
            for ratio in (0.5, 1.0, 2.0):
                width, height = 8 * stride / ratio**0.5, 8 * stride * ratio**0.5
                x, y = column * stride, row * stride
                expected.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    torch.testing.assert_close(anchors, torch.tensor(expected), rtol=0, atol=2e-4)


@pytest.mark.parametrize(("level", "row", "column", "anchor"), [(0, 3, 9, 2), (2, 3, 1, 0), (4, 0, 1, 1)])
def test_output_k_of_a_position_belongs_to_anchor_k(level, row, column, anchor):
    rpn = meta_detector().rpn.eval()
    maps = zero_maps(96, 128)
    logits = [torch.full((1, 3, *each.shape[-2:]), -10.0) for each in maps]
    deltas = [torch.zeros(1, 12, *each.shape[-2:]) for each in maps]
    logits[level][0, anchor, row, column] = 10.0
    deltas[level][0, 4 * anchor : 4 * anchor + 4, row, column] = torch.tensor(
        [0.1, -0.05, log(0.1), log(0.2)]
    )
    rpn.head = Constant(logits, deltas)
    image = ImageList(torch.zeros(1, 3, 96, 128), [(96, 128)])
    [proposals], _ = rpn(image, dict(enumerate(maps)))
    stride, ratio = STRIDES[level], (0.5, 1.0, 2.0)[anchor]
    width, height = 8 * stride / ratio**0.5, 8 * stride * ratio**0.5
    x, y = column * stride + 0.1 * width, row * stride - 0.05 * height
    box = [x - 0.05 * width, y - 0.1 * height, x + 0.05 * width, y + 0.1 * height]
    by_hand = [min(max(edge, 0), side) for edge, side in zip(box, (128, 96, 128, 96), strict=True)]
    assert proposals[0].tolist() == pytest.approx(by_hand, abs=1e-3)


def exact_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return Fraction(both, sum(areas) - both)


def allowed_matches(overlaps, high, low, low_quality):
    """Return the correct answers for each candidate: more than one if boxes overlap it equally."""
    answers = []
    for candidate in range(len(overlaps[0])):
        column = [row[candidate] for row in overlaps]
        best = max(column)
        if best >= high:
            answers.append({index for index, value in enumerate(column) if value == best})
        else:
            answers.append({BACKGROUND if best < low else IGNORED})
    if low_quality is not None:
        for index, row in enumerate(overlaps):
            if max(row) >= low_quality:
                for candidate, value in enumerate(row):
                    if value == max(row):
                        answers[candidate] = {index}  # a later box takes it from an earlier one
    return answers


@pytest.mark.parametrize("objects", [1, 5, 33, 70])
@pytest.mark.parametrize("thresholds", [(0.7, 0.3, 0.3), (0.5, 0.5, 0.5), (0.5, 0.5, None)])
def test_matching_equals_plain_loops(objects, thresholds):
    """Use integer boxes, so that overlaps equal to a threshold and ties between boxes occur."""
    generator = torch.Generator().manual_seed(objects)
    corners = torch.randint(0, 10, (objects + 150, 2), generator=generator)
    boxes = torch.cat([corners, corners + torch.randint(1, 8, corners.shape, generator=generator)], dim=1)
    objects_, candidates = boxes[:objects], boxes[objects:]
    overlaps = [[exact_iou(a, b) for b in candidates.tolist()] for a in objects_.tolist()]
    high, low, low_quality = (None if each is None else Fraction(str(each)) for each in thresholds)
    got = match(objects_.float(), candidates.float(), *thresholds).tolist()
    allowed = allowed_matches(overlaps, high, low, low_quality)
    assert [answer for answer, right in zip(got, allowed, strict=True) if answer not in right] == []
    assert len(set(got)) > 2 or objects == 1


def test_match_thresholds_by_hand():
    """Candidates inside a box of 10 x 10 overlap it by a tenth of their width."""
    box = torch.tensor([[0.0, 0, 10, 10]])
    widths = torch.tensor([7.0, 6.9, 3.0, 2.9, 1.0])  # overlaps of 0.7, 0.69, 0.3, 0.29 and 0.1
    candidates = torch.stack([torch.zeros(5), torch.zeros(5), widths, torch.full((5,), 10.0)], dim=1)
    assert match(box, candidates, 0.7, 0.3).tolist() == [0, IGNORED, IGNORED, BACKGROUND, BACKGROUND]
    assert match(box, candidates[1:], 0.7, 0.3, 0.3).tolist() == [0, IGNORED, BACKGROUND, BACKGROUND]
    assert match(box, candidates[2:], 0.7, 0.3, 0.3).tolist() == [0, BACKGROUND, BACKGROUND]
    assert match(box, candidates[3:], 0.7, 0.3, 0.3).tolist() == [BACKGROUND, BACKGROUND]
    assert match(box[:0], candidates, 0.7, 0.3, 0.3).tolist() == [BACKGROUND] * 5


def test_matching_many_objects_bounds_memory(monkeypatch):
    entries = []

    def recorded_iou(boxes, candidates):
        entries.append(len(boxes) * len(candidates))
        return box_iou(boxes, candidates)

    monkeypatch.setattr(proposals_module, "box_iou", recorded_iou)
    corners = torch.rand(60_500, 2) * 800
    boxes = torch.cat([corners, corners + 1 + 50 * torch.rand(60_500, 2)], dim=1)
    match(boxes[:500], boxes[500:], 0.7, 0.3, 0.3)
    assert sum(entries) == 500 * 60_000
    assert max(entries) <= 2_000_000


def test_anchors_in_the_padding_are_ignored_and_match_no_object():
    """The second image, 40 x 60 in a batch of 96 x 128, would be padded to 64 x 64 on its own."""
    rpn = meta_detector().rpn
    sizes = [(96, 128), (40, 60)]
    anchors = rpn.anchor_generator(ImageList(torch.zeros(2, 3, 96, 128), sizes), zero_maps(96, 128))
    positions = torch.tensor(
        [
            (column * stride, row * stride)
            for stride, each in zip(STRIDES, zero_maps(96, 128), strict=True)
            for row, column in product(*map(range, each.shape[-2:]))
            for _ in range(3)
        ]
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        corners = torch.rand(4, 2, generator=generator) * torch.tensor([40.0, 25.0])
        boxes = torch.cat([corners, torch.tensor([60.0, 40.0]).expand(4, 2)], dim=1)
        targets = [{"boxes": torch.tensor([[20.0, 20, 90, 70]])}, {"boxes": boxes}]
        labels, matched = rpn.assign_targets_to_anchors(anchors, targets, sizes)
        for label, matched_boxes, (height, width) in zip(labels, matched, [(96, 128), (64, 64)], strict=True):
            own = targets[0 if label is labels[0] else 1]["boxes"]
            within = ((positions[:, 0] < width) & (positions[:, 1] < height)).nonzero().flatten().tolist()
            overlaps = box_iou(own, anchors[0][within]).tolist()
            expected = [-1.0] * len(positions)
            for position, [answer] in zip(within, allowed_matches(overlaps, 0.7, 0.3, 0.3), strict=True):
                expected[position] = -1.0 if answer == IGNORED else float(answer >= 0)
                assert answer < 0 or torch.equal(matched_boxes[position], own[answer])
            assert label.tolist() == expected


def test_object_with_best_anchor_in_the_padding_gets_the_next_best():
    """The anchors overlap it by 440/920 and 280/680; the first is centered on x = 64."""
    rpn = meta_detector().rpn
    anchors = [torch.tensor([[42.0, 0, 86, 20], [30.0, 0, 54, 20]])] * 2
    targets = [{"boxes": torch.tensor([[40.0, 0, 64, 20]])}] * 2
    narrow, wide = rpn.assign_targets_to_anchors(anchors, targets, [(20, 64), (20, 65)])[0]
    assert narrow.tolist() == [-1, 1]
    assert wide.tolist() == [1, -1]


def test_anchor_thresholds_by_hand():
    """Anchors within an object of 10 x 10 overlap it by a tenth of their width; the best one needs 0.3."""
    rpn = meta_detector().rpn
    for widths, expected in (
        ([7.1, 6.9, 3.1, 2.9], [1, -1, -1, 0]),
        ([6.9, 3.1, 2.9], [1, -1, 0]),
        ([3.1, 2.9], [1, 0]),
        ([2.9], [0]),
    ):
        anchors = [torch.tensor([[0, 0, width, 10] for width in widths])]
        targets = [{"boxes": torch.tensor([[0.0, 0, 10, 10]])}]
        [labels], _ = rpn.assign_targets_to_anchors(anchors, targets, [(64, 64)])
        assert labels.tolist() == expected


def test_rpn_losses_by_hand():
    """One of four anchors is ignored; smooth L1 would give another loss for 0.05."""
    rpn = meta_detector().rpn
    labels = [torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])]
    targets = [torch.zeros(2, 4), torch.ones(2, 4)]
    deltas = torch.tensor([[0.05, -2.0, 0.0, 1.0], [5.0] * 4, [5.0] * 4, [5.0] * 4])
    logits = torch.tensor([[2.0], [1.0], [9.0], [-1.0]])
    entropy, distance = rpn.compute_loss(logits, deltas, labels, targets)
    by_hand = (log(1 + exp(-2)) + log(1 + exp(1)) + log(1 + exp(-1))) / 3
    assert entropy.item() == pytest.approx(by_hand)
    assert distance.item() == pytest.approx(3.05 / 3)


@pytest.mark.parametrize(("positive", "expected"), [(1000, (128, 128)), (10, (10, 246))])
def test_rpn_samples_256_anchors_at_most_half_positive(positive, expected):
    rpn = meta_detector().rpn
    labels = torch.cat([torch.ones(positive), torch.zeros(1000), torch.full((500,), -1.0)])
    logits = torch.zeros(len(labels), 1, requires_grad=True)
    entropy, _ = rpn.compute_loss(
        logits, torch.zeros(len(labels), 4), [labels], [torch.zeros(len(labels), 4)]
    )
    entropy.backward()
    counted = logits.grad[:, 0] != 0
    assert (int(counted[labels == 1].sum()), int(counted[labels == 0].sum())) == expected
    assert not counted[labels == -1].any()
