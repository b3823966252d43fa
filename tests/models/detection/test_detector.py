"""Complete detectors: inputs, head sizes, gradients, freezing, initialization as in mmdetection 2.x."""

import pytest
import torch

from sdabench import create_model
from sdabench.models.inputs import resized_shape
from tests.helpers.counts import DETECTORS
from tests.helpers.detectors import (
    STRIDES,
    meta_detector,
    small_detector,
    target_of,
    two_images_and_targets,
    zero_maps,
)


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
def test_resized_sizes_round_to_the_nearest_pixel(size, expected):
    assert resized_shape(*size, 800, 1333) == expected
    assert resized_shape(*expected, 800, 1333) == expected or size == (10, 10000)


def test_images_are_normalized_resized_padded_and_boxes_mapped_back():
    inputs = meta_detector(min_size=80, max_size=133).transform
    images = [torch.full((3, 48, 64), 0.5), torch.full((3, 40, 100), 0.5)]
    batch, targets = inputs(images, [target_of([[6, 12, 32, 48]], [1]), target_of([[10, 10, 50, 20]], [1])])
    assert batch.image_sizes == [(80, 107), (53, 133)]
    assert batch.tensors.shape == (2, 3, 96, 160)
    normalized = torch.tensor([(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225])
    torch.testing.assert_close(batch.tensors[0, :, :80, :107], normalized[:, None, None].expand(3, 80, 107))
    assert not batch.tensors[0, :, 80:].any()
    assert not batch.tensors[1, :, :, 133:].any()
    by_hand = [6 * 107 / 64, 12 * 80 / 48, 32 * 107 / 64, 48 * 80 / 48]
    assert targets[0]["boxes"][0].tolist() == pytest.approx(by_hand)
    found = [{"boxes": each["boxes"]} for each in targets]
    back = inputs.eval().postprocess(found, batch.image_sizes, [(48, 64), (40, 100)])
    assert back[0]["boxes"][0].tolist() == pytest.approx([6, 12, 32, 48])
    assert back[1]["boxes"][0].tolist() == pytest.approx([10, 10, 50, 20])


@pytest.mark.parametrize("name", DETECTORS)
def test_heads_of_every_detector_have_the_right_sizes(name):
    with torch.device("meta"):
        network = create_model(name)
        outputs = network.forward_dense(torch.zeros(1, 3, 96, 128), proposals=7, detections=5)
    shapes = [tuple(each.shape) for each in outputs]
    sides = [each.shape[-2:] for each in zero_maps(96, 128)]
    assert shapes[:10] == [(1, channels, *side) for channels in (3, 12) for side in sides]
    assert shapes[10:12] == [(7, 81), (7, 320)]
    assert shapes[12:] == ([(5, 80, 28, 28)] if name.startswith("mask") else [])
    assert network.roi_heads.has_mask() is name.startswith("mask")


@pytest.mark.parametrize("name", ["gsop50", "bl_resnet50", "sda_gcnet50"])
def test_other_backbones_build_a_detector(name):
    network = small_detector(backbone=name, masks=True)
    strides = [4, 8, 16, 16, 32] if name == "gsop50" else STRIDES
    assert list(network.rpn.anchor_generator.strides) == strides
    assert list(network.roi_heads.box_roi_pool.strides) == strides[:4]
    images, targets = two_images_and_targets()
    assert all(loss.isfinite() for loss in network(images, targets).values())
    sides = [tuple(each.shape[-2:]) for each in network.backbone(torch.zeros(2, 3, 64, 96)).values()]
    assert sides == [tuple(each.shape[-2:]) for each in zero_maps(64, 96, strides=strides)]


def parameters_with_gradient(network):
    return {name for name, each in network.named_parameters() if each.grad is not None and each.grad.any()}


def test_every_parameter_of_mask_rcnn_gets_a_gradient():
    network = small_detector(masks=True)
    images, targets = two_images_and_targets()
    losses = network(images, targets)
    assert sorted(losses) == [
        "loss_box_reg", "loss_classifier", "loss_mask", "loss_objectness", "loss_rpn_box_reg",
    ]  # fmt: skip
    sum(losses.values()).backward()
    assert {name for name, _ in network.named_parameters()} - parameters_with_gradient(network) == set()


@pytest.mark.parametrize("masks", [False, True])
def test_images_without_objects_train(masks):
    network = small_detector(masks=masks)
    losses = network(two_images_and_targets()[0], [target_of([], []), target_of([], [])])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_rpn_box_reg"] == losses["loss_box_reg"] == 0
    assert losses.get("loss_mask", 0) == 0
    sum(losses.values()).backward()
    assert "rpn.head.cls_logits.weight" in parameters_with_gradient(network)
    assert "roi_heads.box_predictor.cls_score.weight" in parameters_with_gradient(network)
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def running_statistics(network):
    return {key: value.clone() for key, value in network.state_dict().items() if "running_" in key}


@pytest.mark.parametrize("name", ["resnet50", "res2net50_v1b"])
def test_stem_first_stage_and_batch_norm_statistics_are_frozen(name):
    network = small_detector(backbone=name, frozen=True)
    before = running_statistics(network)
    images, targets = two_images_and_targets()
    sum(network.train()(images, targets).values()).backward()
    without = {name for name, each in network.named_parameters() if each.grad is None}
    body = "backbone.body."
    assert without == {
        name for name, _ in network.named_parameters()
        if name.startswith((f"{body}conv1.", f"{body}bn1.", f"{body}layer1."))
    }  # fmt: skip
    assert "backbone.body.layer2.0.bn1.weight" in parameters_with_gradient(network)
    after = running_statistics(network)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_unfrozen_detector_trains_everything():
    network = small_detector(frozen=True).freeze(False)
    before = running_statistics(network)
    images, targets = two_images_and_targets()
    network.train()(images, targets)
    after = running_statistics(network)
    assert not any(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert create_model("faster_rcnn_resnet50").frozen


def test_bfloat16_keeps_anchors_and_nearly_keeps_losses():
    """Use few boxes, because many CPUs compute bfloat16 slowly, and the same proposals for both."""
    network = small_detector(masks=True, box_batch_size_per_image=16)
    network.roi_heads.detections_per_img = 3
    images, targets = two_images_and_targets()
    anchors, proposals = [], []
    network.rpn.anchor_generator.register_forward_hook(lambda *call: anchors.append(call[-1][0]))

    def same_proposals(module, arguments, output):
        proposals.append(output[0])
        return proposals[0], output[1]

    hook = network.rpn.register_forward_hook(same_proposals)
    exact, rounded = {}, {}
    for losses, enabled in ((exact, False), (rounded, True)):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses |= network(images, targets)
    hook.remove()
    assert all(loss.dtype == torch.float32 for loss in rounded.values())
    for name, loss in exact.items():
        assert rounded[name].item() == pytest.approx(loss.item(), rel=0.1, abs=0.1), name
    assert torch.equal(anchors[0], anchors[1])
    assert anchors[1].dtype == torch.float32
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = network.eval()(images)
    assert all(each["boxes"].dtype == each["scores"].dtype == torch.float32 for each in found)


def test_initialization_follows_mmdetection():
    """Normal 0.01 (RPN, classifier) and 0.001 (deltas), Xavier uniform (pyramid, box head), Kaiming (masks)."""
    network = small_detector(masks=True, num_classes=80)
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
        assert layer.weight.abs().max() > 2.5 * layer.weight.std()  # not a uniform distribution
        assert layer.bias.eq(0).all()
    fpn = network.backbone.fpn
    for layer, fans in (
        (heads.box_head[1], 12544 + 1024),
        (fpn.layer_blocks[0][0], 2 * 256 * 9),
        (fpn.inner_blocks[3][0], 2048 + 256),
    ):
        assert layer.weight.abs().max().item() == pytest.approx((6 / fans) ** 0.5, rel=0.01)
        assert layer.bias.eq(0).all()
