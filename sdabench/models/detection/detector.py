"""Assemble a detector from trunk, feature pyramid, proposal network and heads."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from sdabench.models.detection.heads import BoxPredictor, Detection, Heads, PyramidAlign
from sdabench.models.detection.proposals import Anchors, ProposalHead, ProposalNetwork
from sdabench.models.inputs import MEAN, STD, resized_shape
from sdabench.models.skeleton import Trunk

CHANNELS = 256  # of the feature pyramid


class Detector(GeneralizedRCNN):
    """Faster or Mask R-CNN: images to detections, or to losses in training mode with targets.

    The input is a list of RGB images (3, H, W) from 0 to 1, of any sizes, as in torchvision. Targets are
    ``boxes`` (N, 4) as corners in pixels, ``labels`` (N,) from 1 to K and, for a mask head, ``masks``
    (:class:`sdabench.models.detection.masks.PackedMasks`). Detections are ``boxes``, ``labels``, ``scores``
    and ``masks``: probabilities (N, 28, 28) inside the boxes, which
    :func:`sdabench.models.detection.masks.paste` turns into masks of the image.

    The trunk returns four maps. ``min_size`` is the short side of resized images, ``max_size`` the limit of
    their long side. For training, ``rpn_batch_size_per_image`` anchors and ``box_batch_size_per_image``
    boxes are sampled in each image, the boxes from ``rpn_post_nms_top_n_train`` proposals.
    """

    model_name: str | None = None  # registry name; set by create_model

    def __init__(
        self,
        trunk: Trunk,
        num_classes: int = 80,
        *,
        masks: bool = False,
        min_size: int = 800,
        max_size: int = 1333,
        rpn_batch_size_per_image: int = 256,
        box_batch_size_per_image: int = 512,
        rpn_post_nms_top_n_train: int = 1000,
    ) -> None:
        strides = [info["reduction"] for info in trunk.feature_info]
        anchors = Anchors([*strides, 2 * strides[-1]])
        proposals = ProposalNetwork(
            anchors,
            ProposalHead(CHANNELS, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=rpn_batch_size_per_image,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": rpn_post_nms_top_n_train, "testing": 1000},
            nms_thresh=0.7,
        )
        mask_modules: dict[str, Any] = {}
        if masks:
            mask_modules = {
                "mask_roi_pool": PyramidAlign(strides, 14),
                "mask_head": MaskRCNNHeads(CHANNELS, (CHANNELS,) * 4, dilation=1),
                "mask_predictor": MaskRCNNPredictor(CHANNELS, CHANNELS, num_classes),
            }
        heads = Heads(
            PyramidAlign(strides, 7),
            FastRCNNConvFCHead((CHANNELS, 7, 7), [], [1024, 1024]),
            BoxPredictor(1024, num_classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=box_batch_size_per_image,
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=100,
            **mask_modules,
        )
        super().__init__(Pyramid(trunk), proposals, heads, Inputs(min_size, max_size, list(MEAN), list(STD)))
        for layer in heads.box_head.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        if masks:
            for layer in (heads.mask_predictor.conv5_mask, heads.mask_predictor.mask_fcn_logits):
                nn.init.zeros_(layer.bias)
        self.num_classes = num_classes
        self.freeze()

    def freeze(self, frozen: bool = True) -> Self:
        """Freeze, or unfreeze, the stem, the first stage and all batch-norm statistics, as in the paper.

        Freeze only pretrained trunks: with initial batch-norm statistics the activations of a deep trunk
        grow to 10^4.
        """
        self.frozen = frozen
        trunk = self.backbone.body
        for module in (trunk.conv1, trunk.bn1, trunk.stem_pool, trunk.layer1):
            module.requires_grad_(not frozen)
        return self.train(self.training)

    def depth_attention_weights(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the depth weights of the backbone for normalized images (N, 3, H, W)."""
        weights: dict[str, Tensor] = self.backbone.body.depth_attention_weights(x)
        return weights

    def forward_dense(self, x: Tensor, proposals: int = 1000, detections: int = 100) -> list[Tensor]:
        """Run each layer once, for counting, on images (N, 3, H, W) and some boxes; return all outputs."""
        features = self.backbone(x)
        logits, deltas = self.rpn.head(list(features.values()))
        heads = self.roi_heads
        side = heads.box_roi_pool.side
        outputs = [*logits, *deltas]
        outputs += heads.box_predictor(heads.box_head(x.new_zeros(proposals, CHANNELS, side, side)))
        if self.roi_heads.has_mask():
            side = heads.mask_roi_pool.side
            outputs.append(
                heads.mask_predictor(heads.mask_head(x.new_zeros(detections, CHANNELS, side, side)))
            )
        return outputs

    def forward_given(self, images: list[Tensor], boxes: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Compute the raw outputs for given boxes, without selection by score.

        Boxes are (P, 4) for each image, as corners in pixels of the resized image. ``labels`` has a class
        from 1 to K for each box of all images, and selects the mask of that class.
        """
        batch, _ = self.transform(images)
        features = self.backbone(batch.tensors)
        maps = list(features.values())
        objectness, deltas = self.rpn.head(maps)
        logits, regression = self.roi_heads.box_outputs(features, boxes, batch.image_sizes)
        outputs = {
            "anchors": self.rpn.anchor_generator(batch, maps)[0],
            "objectness": torch.cat([each.flatten(1) for each in objectness], dim=1),
            "anchor_deltas": torch.cat([each.flatten(1) for each in deltas], dim=1),
            "class_logits": logits,
            "box_deltas": regression,
        }
        if self.roi_heads.has_mask():
            outputs["mask_logits"] = self.roi_heads.mask_logits(features, boxes, batch.image_sizes, labels)
        return outputs

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            for module in self.backbone.body.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class Pyramid(nn.Module):
    """A trunk with a feature pyramid: five maps of 256 channels, the last one pooled."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.body = trunk
        channels = [info["num_chs"] for info in trunk.feature_info]
        self.fpn = FeaturePyramidNetwork(channels, CHANNELS, LastLevelMaxPool())
        for layer in self.fpn.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {str(index): each for index, each in enumerate(self.body(x))}
        pyramid: dict[str, Tensor] = self.fpn(OrderedDict(maps))
        return pyramid


class Inputs(GeneralizedRCNNTransform):
    """Normalize and resize images and boxes, and pad the batch to a multiple of 32."""

    def resize(
        self, image: Tensor, target: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any] | None]:
        height, width = image.shape[-2:]
        size = resized_shape(height, width, self.min_size[0], self.max_size)
        if size != (height, width):
            image = F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
        if target is not None:
            target["boxes"] = resize_boxes(target["boxes"], (height, width), size)
        return image, target

    def postprocess(
        self,
        result: list[Detection],
        image_shapes: Sequence[tuple[int, int]],
        original_image_sizes: Sequence[tuple[int, int]],
    ) -> list[Detection]:
        if self.training:
            return result
        for each, size, original in zip(result, image_shapes, original_image_sizes, strict=True):
            each["boxes"] = resize_boxes(each["boxes"], size, original)
        return result


def resize_boxes(boxes: Tensor, size: tuple[int, int], resized: tuple[int, int]) -> Tensor:
    """Scale boxes (N, 4) with an image; sizes are (height, width).

    The result is that of torchvision's function, which copies each size to the device.
    """
    y, x = (float(np.float32(new) / np.float32(old)) for old, new in zip(size, resized, strict=True))
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([left * x, top * y, right * x, bottom * y], dim=1)
