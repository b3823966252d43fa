"""Detectors compute what mmdetection 2.x does: golden values by hand, by loops, or of torchvision's."""

from fractions import Fraction
from itertools import product
from math import exp, log

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from sdabench import create_model
from sdabench.models.build import create_trunk
from sdabench.models.detection import proposals as proposals_module
from sdabench.models.detection.detector import Detector
from sdabench.models.detection.heads import PyramidAlign
from sdabench.models.detection.masks import mask_targets, paste
from sdabench.models.detection.proposals import BACKGROUND, IGNORED, Anchors, match
from sdabench.models.inputs import resized_shape
from tests.helpers.counts import DETECTORS

STRIDES = [4, 8, 16, 32, 64]


def detector(masks=False, backbone="resnet50", frozen=False, **options):
    torch.manual_seed(0)
    options = {"num_classes": 3, "min_size": 64, "max_size": 128} | options
    return Detector(create_trunk(backbone), masks=masks, **options).freeze(frozen)


def parts(**options):
    """What of a detector needs no weights."""
    with torch.device("meta"):
        return detector(**options)


def rle(mask):
    return coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))


def rectangle(box, height, width):
    mask = np.zeros((height, width))
    left, top, right, bottom = (int(edge) for edge in box)
    mask[top:bottom, left:right] = 1
    return mask


def target(boxes, labels, size=(64, 64)):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": [rle(rectangle(box, *size)) for box in boxes],
    }


def two_images():
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 96)]
    return images, [
        target([[5, 5, 40, 50], [20, 30, 60, 60]], [1, 3]),
        target([[8, 8, 90, 50]], [2], (64, 96)),
    ]


def maps_of(height, width, channels=1, strides=STRIDES):
    return [torch.zeros(1, channels, -(-height // stride), -(-width // stride)) for stride in strides]


class Says(nn.Module):
    """A part of a network that puts out the same, whatever it is given."""

    def __init__(self, *outputs):
        super().__init__()
        self.outputs = outputs if len(outputs) > 1 else outputs[0]

    def forward(self, x):
        return self.outputs


# Proposals


def test_anchors_lie_on_the_grid_of_the_levels_own_strides_and_are_not_rounded():
    """800 pixels are 13 positions of stride 64; torchvision would divide and say 61."""
    maps = maps_of(800, 800)
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
def test_output_k_of_a_position_is_of_its_anchor_k(level, row, column, anchor):
    rpn = parts().rpn.eval()
    maps = maps_of(96, 128)
    logits = [torch.full((1, 3, *each.shape[-2:]), -10.0) for each in maps]
    deltas = [torch.zeros(1, 12, *each.shape[-2:]) for each in maps]
    logits[level][0, anchor, row, column] = 10.0
    deltas[level][0, 4 * anchor : 4 * anchor + 4, row, column] = torch.tensor(
        [0.1, -0.05, log(0.1), log(0.2)]
    )
    rpn.head = Says(logits, deltas)
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
    """For each candidate which answers are right: where two boxes overlap it alike, either is."""
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
def test_candidates_are_matched_as_by_plain_loops(objects, thresholds):
    """Boxes of whole numbers, so that overlaps at a threshold and ties between boxes do occur."""
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


def test_thresholds_of_a_match_by_hand():
    """Candidates of width 10 within a box of width 10: shifted by some, they overlap (10 - d) / (10 + d)."""
    box = torch.tensor([[0.0, 0, 10, 10]])
    widths = torch.tensor([7.0, 6.9, 3.0, 2.9, 1.0])  # of candidates inside: overlaps of a tenth each
    candidates = torch.stack([torch.zeros(5), torch.zeros(5), widths, torch.full((5,), 10.0)], dim=1)
    assert match(box, candidates, 0.7, 0.3).tolist() == [0, IGNORED, IGNORED, BACKGROUND, BACKGROUND]
    assert match(box, candidates[1:], 0.7, 0.3, 0.3).tolist() == [0, IGNORED, BACKGROUND, BACKGROUND]
    assert match(box, candidates[2:], 0.7, 0.3, 0.3).tolist() == [0, BACKGROUND, BACKGROUND]
    assert match(box, candidates[3:], 0.7, 0.3, 0.3).tolist() == [BACKGROUND, BACKGROUND]
    assert match(box[:0], candidates, 0.7, 0.3, 0.3).tolist() == [BACKGROUND] * 5


def test_many_objects_do_not_take_the_memory_of_all_overlaps(monkeypatch):
    entries = []

    def seen(boxes, candidates):
        entries.append(len(boxes) * len(candidates))
        return box_iou(boxes, candidates)

    monkeypatch.setattr(proposals_module, "box_iou", seen)
    corners = torch.rand(60_500, 2) * 800
    boxes = torch.cat([corners, corners + 1 + 50 * torch.rand(60_500, 2)], dim=1)
    match(boxes[:500], boxes[500:], 0.7, 0.3, 0.3)
    assert sum(entries) == 500 * 60_000
    assert max(entries) <= 2_000_000


def test_anchors_in_the_padding_are_left_out_and_take_no_object_from_others():
    """The second image, of 40 x 60 in a batch of 96 x 128, is padded to 64 x 64 on its own account."""
    rpn = parts().rpn
    sizes = [(96, 128), (40, 60)]
    anchors = rpn.anchor_generator(ImageList(torch.zeros(2, 3, 96, 128), sizes), maps_of(96, 128))
    places = torch.tensor(
        [
            (column * stride, row * stride)
            for stride, each in zip(STRIDES, maps_of(96, 128), strict=True)
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
        for label, its, (height, width) in zip(labels, matched, [(96, 128), (64, 64)], strict=True):
            own = targets[0 if label is labels[0] else 1]["boxes"]
            within = ((places[:, 0] < width) & (places[:, 1] < height)).nonzero().flatten().tolist()
            overlaps = box_iou(own, anchors[0][within]).tolist()
            expected = [-1.0] * len(places)
            for place, [answer] in zip(within, allowed_matches(overlaps, 0.7, 0.3, 0.3), strict=True):
                expected[place] = -1.0 if answer == IGNORED else float(answer >= 0)
                assert answer < 0 or torch.equal(its[place], own[answer])
            assert label.tolist() == expected


def test_an_object_whose_best_anchor_lies_in_the_padding_has_the_best_of_the_others():
    """The anchors overlap it by 440/920 and 280/680; the first is centred on x = 64."""
    rpn = parts().rpn
    anchors = [torch.tensor([[42.0, 0, 86, 20], [30.0, 0, 54, 20]])] * 2
    targets = [{"boxes": torch.tensor([[40.0, 0, 64, 20]])}] * 2
    narrow, wide = rpn.assign_targets_to_anchors(anchors, targets, [(20, 64), (20, 65)])[0]
    assert narrow.tolist() == [-1, 1]
    assert wide.tolist() == [1, -1]


def test_thresholds_of_anchors_by_hand():
    """Anchors within an object of 10 x 10 overlap it by a tenth of their width; the best one needs 0.3."""
    rpn = parts().rpn
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


def test_the_losses_of_anchors_by_hand():
    """Of four one is left out; of 0.05 smooth L1 would make something else."""
    rpn = parts().rpn
    labels = [torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])]
    wanted = [torch.zeros(2, 4), torch.ones(2, 4)]
    deltas = torch.tensor([[0.05, -2.0, 0.0, 1.0], [5.0] * 4, [5.0] * 4, [5.0] * 4])
    logits = torch.tensor([[2.0], [1.0], [9.0], [-1.0]])
    entropy, distance = rpn.compute_loss(logits, deltas, labels, wanted)
    by_hand = (log(1 + exp(-2)) + log(1 + exp(1)) + log(1 + exp(-1))) / 3
    assert entropy.item() == pytest.approx(by_hand)
    assert distance.item() == pytest.approx(3.05 / 3)


@pytest.mark.parametrize(("positive", "expected"), [(1000, (128, 128)), (10, (10, 246))])
def test_of_an_image_256_anchors_count_at_most_half_of_them_on_objects(positive, expected):
    rpn = parts().rpn
    labels = torch.cat([torch.ones(positive), torch.zeros(1000), torch.full((500,), -1.0)])
    logits = torch.zeros(len(labels), 1, requires_grad=True)
    entropy, _ = rpn.compute_loss(
        logits, torch.zeros(len(labels), 4), [labels], [torch.zeros(len(labels), 4)]
    )
    entropy.backward()
    counted = logits.grad[:, 0] != 0
    assert (int(counted[labels == 1].sum()), int(counted[labels == 0].sum())) == expected
    assert not counted[labels == -1].any()


# Heads


def near(box, count, generator):
    """Boxes that overlap a box of 100 x 100 by two thirds or more."""
    return torch.tensor(box) + 5 * torch.rand(count, 4, generator=generator)


@pytest.mark.parametrize(("close", "expected"), [(600, (128, 384)), (20, (21, 491))])
def test_of_an_image_512_boxes_count_at_most_a_quarter_of_them_on_objects(close, expected):
    generator = torch.Generator().manual_seed(0)
    box, far = [100.0, 100, 200, 200], [300.0, 300, 400, 400]
    proposals = torch.cat([near(box, close, generator), near(far, 900, generator)])
    heads = parts().roi_heads
    chosen, _, [labels], _ = heads.select_training_samples([proposals], [target([box], [2], (500, 500))])
    assert (int((labels == 2).sum()), int((labels == 0).sum())) == expected
    assert len(chosen[0]) == 512


def test_the_objects_themselves_are_among_the_boxes():
    heads = parts().roi_heads
    objects = target([[5, 5, 20, 20], [40, 40, 60, 60]], [1, 3])
    [boxes], [matched], [labels], [deltas] = heads.select_training_samples([torch.zeros(0, 4)], [objects])
    assert torch.equal(boxes, objects["boxes"])
    assert (matched.tolist(), labels.tolist()) == ([0, 1], [1, 3])
    assert not deltas.any()


def test_only_mask_rcnn_gives_an_object_the_box_that_is_its_best_but_fits_another_more():
    """The proposal overlaps the first object by 0.8, the second by 0.6, which nothing overlaps more."""
    objects = target([[0, 0, 10, 10], [0, 0, 6, 8]], [1, 2])
    proposal = torch.tensor([[0.0, 0, 10, 8]])
    for masks, expected in ((False, 1), (True, 2)):
        heads = parts(masks=masks).roi_heads
        _, _, [labels], _ = heads.select_training_samples([proposal], [objects])
        assert labels.tolist() == [expected, 1, 2]


def test_the_losses_of_boxes_and_masks_by_hand():
    """L1 by all boxes, deltas of the own class (0.1, 0.1, 0.2, 0.2 are one), masks of the own class alone."""
    heads = detector(masks=True, num_classes=3).roi_heads
    objects = target([[10, 10, 30, 50]], [2])
    proposals = torch.tensor([[12.0, 10, 32, 50], [40.0, 0, 60, 20], [10.0, 14, 30, 50]])
    logits = torch.randn(4, 4)
    deltas, masks = torch.randn(4, 12), torch.randn(3, 3, 28, 28)
    heads.box_predictor, heads.mask_predictor = Says(logits, deltas), Says(masks)
    features = dict(enumerate(maps_of(64, 64, channels=256)))
    losses = heads._losses(features, [proposals], [(64, 64)], [objects])

    classes = [2, 0, 2, 2]  # the object itself comes last
    entropies = [-logits[row].log_softmax(0)[label].item() for row, label in enumerate(classes)]
    assert losses["loss_classifier"].item() == pytest.approx(sum(entropies) / 4, rel=1e-5)
    wanted = {  # shifts in parts of the proposal's own size, and logarithms of growth
        0: [-2 / 20 / 0.1, 0, 0, 0],
        2: [0, (30 - 32) / 36 / 0.1, 0, log(40 / 36) / 0.2],
        3: [0, 0, 0, 0],
    }
    distance = sum(
        abs(deltas[row, 4 + place].item() - value)  # label 2 has deltas 4 to 7
        for row, values in wanted.items()
        for place, value in enumerate(values)
    )
    assert losses["loss_box_reg"].item() == pytest.approx(distance / 4, rel=1e-4)
    truth = torch.ones(3, 28, 28)
    truth[0, :, 25:] = 0  # 2 of 20 pixels lie outside the object: 2.8 of 28 bins, and half a bin counts
    own = masks[:, 1]
    by_hand = (own.exp() + 1).log() - truth * own
    assert losses["loss_mask"].item() == pytest.approx(by_hand.mean().item(), rel=1e-4)


def roi_align_by_loops(values, box, stride, side):
    """Aligned, with as many samples in a bin as the bin has pixels, rounded up."""
    left, top, right, bottom = (edge / stride - 0.5 for edge in box)
    bin_height, bin_width = (bottom - top) / side, (right - left) / side
    rows, columns = int(np.ceil(bin_height)), int(np.ceil(bin_width))
    pooled = np.zeros((side, side))
    for i, j, a, b in product(range(side), range(side), range(rows), range(columns)):
        y = top + (i + (a + 0.5) / rows) * bin_height
        x = left + (j + (b + 0.5) / columns) * bin_width
        v, u = int(y), int(x)
        dy, dx = y - v, x - u
        upper = values[v, u] * (1 - dx) + values[v, u + 1] * dx
        lower = values[v + 1, u] * (1 - dx) + values[v + 1, u + 1] * dx
        pooled[i, j] += (upper * (1 - dy) + lower * dy) / (rows * columns)
    return pooled


def test_boxes_are_pooled_aligned_and_by_as_many_samples_as_there_are_pixels():
    values = torch.rand(64, 64)
    features = {0: values[None, None], 1: torch.zeros(1, 1, 32, 32)}
    box = [21.3, 30.1, 101.9, 61.7]  # of 20 x 8 pixels of the map: 3 x 2 samples a bin
    pooled = PyramidAlign([4, 8], 7)(features, [torch.tensor([box])], [(256, 256)])
    expected = roi_align_by_loops(values.double().numpy(), box, 4, 7)
    np.testing.assert_allclose(pooled[0, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("side", "level"),
    [(20, 0), (111, 0), (112, 1), (223, 1), (224, 2), (447, 2), (448, 3), (900, 3)],
)
def test_a_box_is_pooled_from_the_level_that_fits_its_size(side, level):
    """Each map holds the x of its pixels' centres and its number; a bin then has the x of its own centre."""
    strides = STRIDES[:4]
    features = {}
    for number, stride in enumerate(strides):
        x = (torch.arange(1024 // stride) + 0.5) * stride
        ramp = x.expand(1, 1, len(x), -1)
        features[number] = torch.cat([ramp, torch.full_like(ramp, number)], dim=1).expand(2, -1, -1, -1)
    features[4] = torch.full((2, 2, 16, 16), 99.0)  # the pooled level has no boxes
    left = 50.25
    box = torch.tensor([[left, 40.0, left + side, 40.0 + side]])
    pooled = PyramidAlign(strides, 7)(features, [box, box + 1], [(1024, 1024)] * 2)
    bins = left + (torch.arange(7) + 0.5) / 7 * side
    for own, start in zip(pooled, (0, 1), strict=True):
        torch.testing.assert_close(own[0], (bins + start).expand(7, 7), rtol=0, atol=2e-3)
        assert own[1].eq(level).all()


def test_each_image_is_pooled_from_its_own_map():
    features = {0: torch.stack([torch.full((1, 16, 16), value) for value in (1.0, 2.0, 3.0)])}
    boxes = [torch.tensor([[8.0, 8, 40, 40]] * count) for count in (2, 0, 1)]
    assert PyramidAlign([4], 7)(features, boxes, [(64, 64)] * 3)[:, 0, 0, 0].tolist() == [1, 1, 3]


def detections(heads, logits, deltas, proposals, size=(100, 200)):
    boxes, scores, labels = heads.postprocess_detections(logits, deltas, [proposals], [size])
    return boxes[0], scores[0], labels[0]


def test_boxes_are_decoded_by_hand():
    heads = parts(num_classes=2).roi_heads
    proposals = torch.tensor([[10.0, 20, 50, 40]])
    deltas = torch.tensor([[9.0, 9, 9, 9, 1.0, -2.0, 2.0, -1.0]])
    boxes, scores, labels = detections(heads, torch.tensor([[0.0, -9.0, 3.0]]), deltas, proposals)
    x, y = 30 + 0.1 * 40, 30 - 0.2 * 20
    width, height = 40 * exp(0.4), 20 * exp(-0.2)
    by_hand = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    assert boxes[0].tolist() == pytest.approx(by_hand, rel=1e-5)
    assert labels.tolist() == [2]
    assert scores.item() == pytest.approx(exp(3) / (1 + exp(3) + exp(-9)), rel=1e-5)


def test_boxes_end_at_the_images_border():
    heads = parts(num_classes=1).roi_heads
    proposals = torch.tensor([[10.0, 20, 190, 90]])
    boxes, _, _ = detections(heads, torch.tensor([[0.0, 3.0]]), torch.tensor([[0.0, 0, 5, 5]]), proposals)
    assert boxes.tolist() == [[0, 0, 200, 100]]


def logits_of(scores):
    """Of the background and two classes, from the probabilities of the two."""
    first, second = torch.tensor(scores).unbind(1)
    return torch.stack([1 - first - second, first, second], dim=1).log()


def test_detections_need_a_score_above_a_twentieth_and_no_better_one_of_their_class():
    """Boxes of 100 x 60 and less, one above another; the last two stand apart."""
    heads = parts(num_classes=2).roi_heads
    bottoms = [60, 31, 29, 58]
    proposals = torch.tensor(
        [[0, 0, 100, bottom] for bottom in bottoms] + [[120, 0, 160, 40], [120, 50, 160, 90]]
    )
    scores = [[0.9, 0.06], [0.8, 0.07], [0.7, 0.0001], [0.0001, 0.6], [0.0001, 0.049], [0.0001, 0.051]]
    boxes, kept, labels = detections(heads, logits_of(scores), torch.zeros(6, 8), proposals.float())
    # The second overlaps the first by 31/60, and the fourth, of the other class, by 31/58; the third by 29/60.
    assert kept.tolist() == pytest.approx([0.9, 0.7, 0.6, 0.051], abs=1e-4)
    assert labels.tolist() == [1, 1, 2, 2]
    assert boxes[:, 3].tolist() == [60, 29, 58, 90]


def test_at_most_a_hundred_detections_are_the_best():
    heads = parts(num_classes=2).roi_heads
    left = torch.arange(150.0)
    proposals = torch.stack([left, torch.zeros(150), left + 1, torch.ones(150)], dim=1)
    scores = torch.linspace(0.1, 0.9, 150)
    rows = logits_of([[score, 0.01] for score in scores.tolist()])
    boxes, kept, _ = detections(heads, rows, torch.zeros(150, 8), proposals)
    assert boxes[:, 0].tolist() == list(range(149, 49, -1))
    assert kept.tolist() == pytest.approx(scores.flip(0)[:100].tolist(), abs=1e-5)


def test_an_image_where_nothing_is_found_has_no_masks_either():
    network = detector(masks=True).eval()
    nn.init.zeros_(network.roi_heads.box_predictor.cls_score.weight)
    network.roi_heads.box_predictor.cls_score.bias.data = torch.tensor([10.0, 0, 0, 0])
    with torch.inference_mode():
        [found] = network([torch.rand(3, 64, 80)])
    assert found["boxes"].shape == (0, 4)
    assert found["masks"].shape == (0, 28, 28)


def test_outputs_that_are_not_finite_are_an_error():
    network = detector(num_classes=1).eval()
    heads = network.roi_heads
    proposals = torch.tensor([[10.0, 20, 50, 40]])
    for place in range(2):
        outputs = [torch.zeros(1, 2), torch.zeros(1, 4)]
        outputs[place][0, 0] = float("nan")
        with pytest.raises(FloatingPointError, match="boxes are not finite"):
            detections(heads, *outputs, proposals)
    # All proposals would be dropped, and nothing be found in silence.
    network.backbone.body.conv1.weight.data.fill_(float("nan"))
    with torch.inference_mode(), pytest.raises(FloatingPointError, match="anchors are not finite"):
        network([torch.rand(3, 64, 64)])


# Masks


def test_what_a_mask_head_shall_say_inside_boxes():
    """A rectangle over the left half of a box; another object at half the image's size; shifted boxes."""
    left_half = coco_mask.frPyObjects([[10.0, 10, 24, 10, 24, 38, 10, 38]], 50, 60)
    masks = [coco_mask.merge(left_half), rle(rectangle([5, 5, 10, 10], 25, 30))]
    boxes = torch.tensor([[10.0, 10, 38, 38], [10.0, 10, 20, 20], [17.0, 10, 45, 38], [40.0, 0, 60, 9]])
    targets = mask_targets(masks, torch.tensor([0, 1, 0, 0]), boxes, (50, 60), 28)
    halves = torch.zeros(28, 28)
    halves[:, :14] = 1
    assert torch.equal(targets[0], halves)
    assert targets[1][2:26].eq(1).all()  # its corners are rounded, within two bins
    assert targets[1][:, 2:26].eq(1).all()
    assert torch.equal(targets[2], halves.roll(-7, dims=1) * (torch.arange(28) < 7))
    assert not targets[3].any()


def test_what_a_mask_head_shall_say_is_0_or_1():
    disc = torch.linspace(-1, 1, 40).square()
    mask = rle(disc[:, None] + disc < 0.8)
    [wanted] = mask_targets([mask], torch.tensor([0]), torch.tensor([[3.3, 4.1, 36.2, 30.7]]), (40, 40), 28)
    assert set(wanted.unique().tolist()) == {0.0, 1.0}
    assert wanted[14, 14] == 1


def decoded(rles):
    return [coco_mask.decode(each) for each in rles]


@pytest.mark.parametrize("box", [(3, 5, 20, 25), (0, 0, 28, 28), (40, 30, 60, 50), (59, 49, 60, 50)])
def test_a_full_mask_fills_its_box_to_the_pixel(box):
    [mask] = decoded(paste(torch.ones(1, 28, 28), torch.tensor([box]).float(), (50, 60)))
    np.testing.assert_array_equal(mask, rectangle(box, 50, 60))


def paste_by_loops(probability, box, height, width):
    """Bilinear at the pixels' centres, and nothing around the 28 x 28."""
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
def test_masks_are_pasted_as_by_plain_loops_also_over_the_border(box):
    probability = torch.rand(28, 28)
    [mask] = decoded(paste(probability[None], torch.tensor([box]), (50, 60)))
    np.testing.assert_array_equal(mask, paste_by_loops(probability, box, 50, 60))


def test_masks_of_nothing_and_of_no_place_are_empty():
    boxes = torch.tensor(
        [[5.0, 5, 5, 5], [5.0, 5, 9, 5], [70.0, 5, 80, 9], [-9.0, -9, -5, -5], [5.0, 60, 9, 70]]
    )
    assert not any(mask.any() for mask in decoded(paste(torch.ones(5, 28, 28), boxes, (50, 60))))
    assert paste(torch.ones(0, 28, 28), torch.zeros(0, 4), (50, 60)) == []


# Images


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((400, 1000), (533, 1333)),
        ((333, 1000), (444, 1333)),
        ((1600, 1600), (800, 800)),
        ((10, 10000), (1, 1333)),
    ],
)
def test_sizes_are_rounded_to_the_nearest_pixel_as_by_mmdetection(size, expected):
    assert resized_shape(*size, 800, 1333) == expected
    assert resized_shape(*expected, 800, 1333) == expected or size == (10, 10000)


def test_images_are_normalised_resized_and_padded_and_boxes_come_back():
    inputs = parts(min_size=80, max_size=133).transform
    images = [torch.full((3, 48, 64), 0.5), torch.full((3, 40, 100), 0.5)]
    batch, targets = inputs(images, [target([[6, 12, 32, 48]], [1]), target([[10, 10, 50, 20]], [1])])
    assert batch.image_sizes == [(80, 107), (53, 133)]
    assert batch.tensors.shape == (2, 3, 96, 160)
    normalised = torch.tensor([(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225])
    torch.testing.assert_close(batch.tensors[0, :, :80, :107], normalised[:, None, None].expand(3, 80, 107))
    assert not batch.tensors[0, :, 80:].any()
    assert not batch.tensors[1, :, :, 133:].any()
    by_hand = [6 * 107 / 64, 12 * 80 / 48, 32 * 107 / 64, 48 * 80 / 48]
    assert targets[0]["boxes"][0].tolist() == pytest.approx(by_hand)
    found = [{"boxes": each["boxes"]} for each in targets]
    back = inputs.eval().postprocess(found, batch.image_sizes, [(48, 64), (40, 100)])
    assert back[0]["boxes"][0].tolist() == pytest.approx([6, 12, 32, 48])
    assert back[1]["boxes"][0].tolist() == pytest.approx([10, 10, 50, 20])


# Whole networks


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_has_heads_of_the_right_sizes(name):
    with torch.device("meta"):
        network = create_model(name)
        outputs = network.forward_dense(torch.zeros(1, 3, 96, 128), proposals=7, detections=5)
    shapes = [tuple(each.shape) for each in outputs]
    sides = [each.shape[-2:] for each in maps_of(96, 128)]
    assert shapes[:10] == [(1, channels, *side) for channels in (3, 12) for side in sides]
    assert shapes[10:12] == [(7, 81), (7, 320)]
    assert shapes[12:] == ([(5, 80, 28, 28)] if name.startswith("mask") else [])
    assert network.roi_heads.has_mask() is name.startswith("mask")


@pytest.mark.parametrize("name", ["gsop50", "bl_resnet50", "sda_gcnet50"])
def test_other_trunks_carry_a_detector_too(name):
    network = detector(backbone=name, masks=True)
    strides = [4, 8, 16, 16, 32] if name == "gsop50" else STRIDES
    assert list(network.rpn.anchor_generator.strides) == strides
    assert list(network.roi_heads.box_roi_pool.strides) == strides[:4]
    images, targets = two_images()
    assert all(loss.isfinite() for loss in network(images, targets).values())
    sides = [tuple(each.shape[-2:]) for each in network.backbone(torch.zeros(2, 3, 64, 96)).values()]
    assert sides == [tuple(each.shape[-2:]) for each in maps_of(64, 96, strides=strides)]


def gradients(network):
    return {name for name, each in network.named_parameters() if each.grad is not None and each.grad.any()}


def test_every_parameter_of_a_mask_rcnn_gets_a_gradient():
    network = detector(masks=True)
    images, targets = two_images()
    losses = network(images, targets)
    assert sorted(losses) == [
        "loss_box_reg", "loss_classifier", "loss_mask", "loss_objectness", "loss_rpn_box_reg",
    ]  # fmt: skip
    sum(losses.values()).backward()
    assert {name for name, _ in network.named_parameters()} - gradients(network) == set()


@pytest.mark.parametrize("masks", [False, True])
def test_images_without_objects_train(masks):
    network = detector(masks=masks)
    losses = network(two_images()[0], [target([], []), target([], [])])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_rpn_box_reg"] == losses["loss_box_reg"] == 0
    assert losses.get("loss_mask", 0) == 0
    sum(losses.values()).backward()
    assert "rpn.head.cls_logits.weight" in gradients(network)
    assert "roi_heads.box_predictor.cls_score.weight" in gradients(network)
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def statistics(network):
    return {key: value.clone() for key, value in network.state_dict().items() if "running_" in key}


@pytest.mark.parametrize("name", ["resnet50", "res2net50_v1b"])
def test_stem_first_stage_and_all_statistics_are_frozen(name):
    network = detector(backbone=name, frozen=True)
    before = statistics(network)
    images, targets = two_images()
    sum(network.train()(images, targets).values()).backward()
    without = {name for name, each in network.named_parameters() if each.grad is None}
    body = "backbone.body."
    assert without == {
        name for name, _ in network.named_parameters()
        if name.startswith((f"{body}conv1.", f"{body}bn1.", f"{body}layer1."))
    }  # fmt: skip
    assert "backbone.body.layer2.0.bn1.weight" in gradients(network)
    after = statistics(network)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_detector_that_is_not_frozen_trains_everything():
    network = detector(frozen=True).freeze(False)
    before = statistics(network)
    images, targets = two_images()
    network.train()(images, targets)
    after = statistics(network)
    assert not any(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert create_model("faster_rcnn_resnet50").frozen


def test_bfloat16_changes_losses_little_and_no_anchor():
    network = detector(masks=True)
    images, targets = two_images()
    seen = []
    network.rpn.anchor_generator.register_forward_hook(lambda _, __, anchors: seen.append(anchors[0]))
    exact, rounded = {}, {}
    for losses, enabled in ((exact, False), (rounded, True)):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses |= network(images, targets)
    assert all(loss.dtype == torch.float32 for loss in rounded.values())
    for name, loss in exact.items():
        assert rounded[name].item() == pytest.approx(loss.item(), rel=0.1, abs=0.1), name
    assert torch.equal(seen[0], seen[1])
    assert seen[1].dtype == torch.float32
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = network.eval()(images)
    assert all(each["boxes"].dtype == each["scores"].dtype == torch.float32 for each in found)


def test_initialisation_is_mmdetections():
    """Normal 0.01 (RPN, classifier) and 0.001 (deltas), Xavier uniform (pyramid, box head), Kaiming (masks)."""
    network = detector(masks=True, num_classes=80)
    heads, rpn = network.roi_heads, network.rpn.head
    for layer, std in (
        (rpn.conv, 0.01),
        (rpn.bbox_pred, 0.01),
        (heads.box_predictor.cls_score, 0.01),
        (heads.box_predictor.bbox_pred, 0.001),
        (heads.mask_head[0][0], (2 / (256 * 9)) ** 0.5),
        (heads.mask_predictor.mask_fcn_logits, (2 / 80) ** 0.5),
        (heads.mask_predictor.conv5_mask, (2 / (256 * 4)) ** 0.5),
    ):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert layer.weight.abs().max() > 2.5 * layer.weight.std()  # no uniform distribution
        assert layer.bias.eq(0).all()
    fpn = network.backbone.fpn
    for layer, fans in (
        (heads.box_head[1], 12544 + 1024),
        (fpn.layer_blocks[0][0], 2 * 256 * 9),
        (fpn.inner_blocks[3][0], 2048 + 256),
    ):
        assert layer.weight.abs().max().item() == pytest.approx((6 / fans) ** 0.5, rel=0.01)
        assert layer.bias.eq(0).all()
