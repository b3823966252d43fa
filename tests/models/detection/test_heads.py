"""Heads sample, pool, score and decode as in mmdetection 2.x: golden values by hand or by loops."""

from itertools import product
from math import exp, log

import numpy as np
import pytest
import torch
from torch import nn

from sdabench.models.detection.heads import PyramidAlign
from tests.helpers.detectors import STRIDES, Constant, meta_detector, small_detector, target_of, zero_maps


def boxes_near(box, count, generator):
    """Create boxes that overlap a box of 100 x 100 by two thirds or more."""
    return torch.tensor(box) + 5 * torch.rand(count, 4, generator=generator)


@pytest.mark.parametrize(("close", "expected"), [(600, (128, 384)), (20, (21, 491))])
def test_heads_sample_512_boxes_at_most_a_quarter_positive(close, expected):
    generator = torch.Generator().manual_seed(0)
    box, far = [100.0, 100, 200, 200], [300.0, 300, 400, 400]
    proposals = torch.cat([boxes_near(box, close, generator), boxes_near(far, 900, generator)])
    heads = meta_detector().roi_heads
    chosen, _, [labels], _ = heads.select_training_samples([proposals], [target_of([box], [2], (500, 500))])
    assert (int((labels == 2).sum()), int((labels == 0).sum())) == expected
    assert len(chosen[0]) == 512


@pytest.mark.parametrize("masks", [False, True])
def test_ground_truth_boxes_are_added_to_the_proposals(masks):
    heads = meta_detector(masks=masks).roi_heads
    objects = target_of([[5, 5, 20, 20], [40, 40, 60, 60]], [1, 3])
    [boxes], [matched], [labels], [deltas] = heads.select_training_samples([torch.zeros(0, 4)], [objects])
    assert torch.equal(boxes, objects["boxes"])
    assert (matched.tolist(), labels.tolist()) == ([0, 1], [1, 3])
    assert not deltas.any()


def test_only_mask_rcnn_matches_low_quality_proposals():
    """The proposal overlaps the first object by 0.8 and the second by 0.6, the best overlap of the second."""
    objects = target_of([[0, 0, 10, 10], [0, 0, 6, 8]], [1, 2])
    proposal = torch.tensor([[0.0, 0, 10, 8]])
    for masks, expected in ((False, 1), (True, 2)):
        heads = meta_detector(masks=masks).roi_heads
        _, _, [labels], _ = heads.select_training_samples([proposal], [objects])
        assert labels.tolist() == [expected, 1, 2]


def test_box_and_mask_losses_by_hand():
    """L1 over all boxes, deltas of the true class (divided by 0.1, 0.1, 0.2, 0.2), masks of the true class only."""
    heads = small_detector(masks=True, num_classes=3).roi_heads
    objects = target_of([[10, 10, 30, 50]], [2])
    proposals = torch.tensor([[12.0, 10, 32, 50], [40.0, 0, 60, 20], [10.0, 14, 30, 50]])
    logits = torch.randn(4, 4)
    deltas, masks = torch.randn(4, 12), torch.randn(3, 3, 28, 28)
    heads.box_predictor, heads.mask_predictor = Constant(logits, deltas), Constant(masks)
    features = dict(enumerate(zero_maps(64, 64, channels=256)))
    losses = heads._losses(features, [proposals], [(64, 64)], [objects])

    classes = [2, 0, 2, 2]  # the object itself comes last
    entropies = [-logits[row].log_softmax(0)[label].item() for row, label in enumerate(classes)]
    assert losses["loss_classifier"].item() == pytest.approx(sum(entropies) / 4, rel=1e-5)
    expected_deltas = {  # shifts relative to the size of the proposal, and logarithms of the scale
        0: [-2 / 20 / 0.1, 0, 0, 0],
        2: [0, (30 - 32) / 36 / 0.1, 0, log(40 / 36) / 0.2],
        3: [0, 0, 0, 0],
    }
    distance = sum(
        abs(deltas[row, 4 + place].item() - value)  # label 2 has deltas 4 to 7
        for row, values in expected_deltas.items()
        for place, value in enumerate(values)
    )
    assert losses["loss_box_reg"].item() == pytest.approx(distance / 4, rel=1e-4)
    truth = torch.ones(3, 28, 28)
    truth[0, :, 25:] = 0  # 2 of 20 pixels lie outside the object: 2.8 of 28 bins, and half a bin counts
    own = masks[:, 1]
    by_hand = (own.exp() + 1).log() - truth * own
    assert losses["loss_mask"].item() == pytest.approx(by_hand.mean().item(), rel=1e-4)


def test_losses_without_any_box_are_zero():
    heads = small_detector(masks=True).roi_heads
    features = dict(enumerate(zero_maps(64, 64, channels=256)))
    losses = heads._losses(features, [torch.zeros(0, 4)], [(64, 64)], [target_of([], [])])
    assert {name: loss.item() for name, loss in losses.items()} == {
        "loss_classifier": 0,
        "loss_box_reg": 0,
        "loss_mask": 0,
    }
    sum(losses.values()).backward()


def roi_align_by_loops(values, box, stride, side):
    """Pool aligned bins, with as many samples per bin as it has pixels, rounded up."""
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


def test_roi_align_is_aligned_and_samples_adaptively():
    values = torch.rand(64, 64)
    features = {0: values[None, None], 1: torch.zeros(1, 1, 32, 32)}
    box = [21.3, 30.1, 101.9, 61.7]  # 20 x 8 pixels of the map: 3 x 2 samples per bin
    pooled = PyramidAlign([4, 8], 7)(features, [torch.tensor([box])], [(256, 256)])
    expected = roi_align_by_loops(values.double().numpy(), box, 4, 7)
    np.testing.assert_allclose(pooled[0, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("side", "level"),
    [(20, 0), (111, 0), (112, 1), (223, 1), (224, 2), (447, 2), (448, 3), (900, 3)],
)
def test_box_is_pooled_from_the_level_of_its_size(side, level):
    """Each map holds the x of its pixel centers and its level; a bin then has the x of its own center."""
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


def test_boxes_are_pooled_from_the_map_of_their_own_image():
    features = {0: torch.stack([torch.full((1, 16, 16), value) for value in (1.0, 2.0, 3.0)])}
    boxes = [torch.tensor([[8.0, 8, 40, 40]] * count) for count in (2, 0, 1)]
    assert PyramidAlign([4], 7)(features, boxes, [(64, 64)] * 3)[:, 0, 0, 0].tolist() == [1, 1, 3]


def detections_of(heads, logits, deltas, proposals, size=(100, 200)):
    boxes, scores, labels = heads.postprocess_detections(logits, deltas, [proposals], [size])
    return boxes[0], scores[0], labels[0]


def test_box_decoding_by_hand():
    heads = meta_detector(num_classes=2).roi_heads
    proposals = torch.tensor([[10.0, 20, 50, 40]])
    deltas = torch.tensor([[9.0, 9, 9, 9, 1.0, -2.0, 2.0, -1.0]])
    boxes, scores, labels = detections_of(heads, torch.tensor([[0.0, -9.0, 3.0]]), deltas, proposals)
    x, y = 30 + 0.1 * 40, 30 - 0.2 * 20
    width, height = 40 * exp(0.4), 20 * exp(-0.2)
    by_hand = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    assert boxes[0].tolist() == pytest.approx(by_hand, rel=1e-5)
    assert labels.tolist() == [2]
    assert scores.item() == pytest.approx(exp(3) / (1 + exp(3) + exp(-9)), rel=1e-5)


def test_boxes_are_clipped_to_the_image():
    heads = meta_detector(num_classes=1).roi_heads
    proposals = torch.tensor([[10.0, 20, 190, 90]])
    boxes, _, _ = detections_of(heads, torch.tensor([[0.0, 3.0]]), torch.tensor([[0.0, 0, 5, 5]]), proposals)
    assert boxes.tolist() == [[0, 0, 200, 100]]


def logits_of(scores):
    """Compute the logits of the background and two classes from the probabilities of the two classes."""
    first, second = torch.tensor(scores).unbind(1)
    return torch.stack([1 - first - second, first, second], dim=1).log()


def test_score_threshold_and_nms_for_each_class():
    """Boxes of at most 100 x 60 that overlap each other; the last two lie apart."""
    heads = meta_detector(num_classes=2).roi_heads
    bottoms = [60, 31, 29, 58]
    proposals = torch.tensor(
        [[0, 0, 100, bottom] for bottom in bottoms] + [[120, 0, 160, 40], [120, 50, 160, 90]]
    )
    scores = [[0.9, 0.06], [0.8, 0.07], [0.7, 0.0001], [0.0001, 0.6], [0.0001, 0.049], [0.0001, 0.051]]
    boxes, kept_scores, labels = detections_of(heads, logits_of(scores), torch.zeros(6, 8), proposals.float())
    # The second overlaps the first by 31/60, and the fourth, of the other class, by 31/58; the third by 29/60.
    assert kept_scores.tolist() == pytest.approx([0.9, 0.7, 0.6, 0.051], abs=1e-4)
    assert labels.tolist() == [1, 1, 2, 2]
    assert boxes[:, 3].tolist() == [60, 29, 58, 90]


def test_at_most_100_detections_with_the_highest_scores():
    heads = meta_detector(num_classes=2).roi_heads
    left = torch.arange(150.0)
    proposals = torch.stack([left, torch.zeros(150), left + 1, torch.ones(150)], dim=1)
    scores = torch.linspace(0.1, 0.9, 150)
    rows = logits_of([[score, 0.01] for score in scores.tolist()])
    boxes, kept_scores, _ = detections_of(heads, rows, torch.zeros(150, 8), proposals)
    assert boxes[:, 0].tolist() == list(range(149, 49, -1))
    assert kept_scores.tolist() == pytest.approx(scores.flip(0)[:100].tolist(), abs=1e-5)


def test_image_without_detections_has_no_masks():
    network = small_detector(masks=True).eval()
    nn.init.zeros_(network.roi_heads.box_predictor.cls_score.weight)
    network.roi_heads.box_predictor.cls_score.bias.data = torch.tensor([10.0, 0, 0, 0])
    with torch.inference_mode():
        [found] = network([torch.rand(3, 64, 80)])
    assert found["boxes"].shape == (0, 4)
    assert found["masks"].shape == (0, 28, 28)


def test_non_finite_outputs_are_an_error():
    network = small_detector(num_classes=1).eval()
    heads = network.roi_heads
    proposals = torch.tensor([[10.0, 20, 50, 40]])
    for place in range(2):
        outputs = [torch.zeros(1, 2), torch.zeros(1, 4)]
        outputs[place][0, 0] = float("nan")
        with pytest.raises(FloatingPointError, match="boxes are not finite"):
            detections_of(heads, *outputs, proposals)
    # Otherwise all proposals would be dropped silently, and nothing would be detected.
    network.backbone.body.conv1.weight.data.fill_(float("nan"))
    with torch.inference_mode(), pytest.raises(FloatingPointError, match="anchors are not finite"):
        network([torch.rand(3, 64, 64)])
